"""Run ``python -m segclip``."""

from .cli import app

app(prog_name="segclip")
