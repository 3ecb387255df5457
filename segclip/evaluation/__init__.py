"""Measure models on labelled data, one module per subcommand of ``segclip evaluate``."""
