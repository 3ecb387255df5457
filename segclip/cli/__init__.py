"""The ``segclip`` command: one file a verb, put together in ``main``."""
