"""Find a browser's work by the key in its URL, so that a reload keeps the work."""

from __future__ import annotations

import streamlit as st

from .state import Studio, Work, studio

_KEY = "work"


def current() -> tuple[Studio, Work]:
    """Return this browser's work, or a new one; an evicted work is reported."""
    shared = studio()
    key = str(st.session_state.get(_KEY) or st.query_params.get(_KEY) or "")
    work = shared.find(key) if key else None
    if work is None:
        if key:
            st.toast("Your image was closed to make room for others; open it again.")
        key, work = shared.begin()
    st.session_state[_KEY] = key
    if st.query_params.get(_KEY) != key:
        st.query_params[_KEY] = key
    return shared, work
