"""The server that ``segclip app`` starts: the pages and, optionally, the HTTP API."""

import sys
from importlib import import_module
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

_HERE = Path(__file__).resolve().parent
if str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))
_serving = import_module(f"{_HERE.name}.serving")
_guard = import_module(f"{_HERE.name}.http.guard")
app = st.App(
    "streamlit_app.py",
    routes=_serving.routes(),
    middleware=[
        Middleware(_guard.Guard, names=_serving.names()),
        Middleware(_guard.Paced, held=_serving.held),
    ],
    lifespan=_serving.lifespan,
)
