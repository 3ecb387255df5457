"""The script that the server of ``segclip app`` runs for every open page."""

import sys
from importlib import import_module
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# streamlit adds this folder to the path, but not the parent of the package
if str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))
import_module(f"{_HERE.name}.page").show()
