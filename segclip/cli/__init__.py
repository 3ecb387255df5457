"""The ``segclip`` command: one module per subcommand, assembled in ``main``."""
