"""Serve the pages and the HTTP API from one process: what ``segclip app --api`` starts."""

import sys
from importlib import import_module
from pathlib import Path

import streamlit as st
from starlette.routing import Mount

_HERE = Path(__file__).resolve().parent
if str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))
_api = import_module(f"{_HERE.name}.api").make_api(import_module(f"{_HERE.name}.state").studio())
app = st.App("streamlit_app.py", routes=[Mount("/api", _api)])
