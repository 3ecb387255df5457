"""Show the page: the script that the server of ``segclip app`` runs for everybody who is there."""

import sys
from importlib import import_module
from pathlib import Path

_HERE = Path(__file__).resolve().parent
if (
    str(_HERE.parent) not in sys.path
):  # streamlit adds this folder, but not the one it is a package of
    sys.path.append(str(_HERE.parent))
import_module(f"{_HERE.name}.page").show()
