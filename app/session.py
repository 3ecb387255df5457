"""Find the work a browser is at: its key is in the address, so that a reload keeps the work."""

from __future__ import annotations

import streamlit as st

from .state import Studio, Work, studio

_KEY = "work"


def current() -> tuple[Studio, Work]:
    """Give this browser's work; a newcomer's is begun, one that had to go is told."""
    shared = studio()
    key = str(st.session_state.get(_KEY) or st.query_params.get(_KEY) or "")
    work = shared.find(key) if key else None
    if work is None:
        if key:
            st.toast("Your picture was put away to make room for others; open it again.")
        key, work = shared.begin()
    st.session_state[_KEY] = key
    if st.query_params.get(_KEY) != key:
        st.query_params[_KEY] = key
    return shared, work
