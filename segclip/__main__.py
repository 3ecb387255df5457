"""Run ``python -m segclip``."""

from .cli.main import main

main()
