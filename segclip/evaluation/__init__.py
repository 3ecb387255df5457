"""Measure models on labelled data, one file a verb of ``segclip evaluate``."""
