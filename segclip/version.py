"""Say which segclip this is."""

__version__ = "0.1.0"
