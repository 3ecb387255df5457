"""Run ``python -m segclip``."""

from .cli import main

main()
