"""Mount the studio: picture, masks and candidates in one component, whose clicks come back as
events.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent
_HTML, _CSS, _JS = ((_HERE / f"canvas.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
_mount = st.components.v2.component("segclip_studio", html=_HTML, css=_CSS, js=_JS)
KEY = "studio"


def mount(data: dict[str, Any], on_event: Callable[[], None], on_need: Callable[[], None]) -> None:
    """Show ``data``; ``on_event`` hears of what is done by hand, ``on_need`` that the picture is to
    be sent again.
    """
    _mount(key=KEY, data=data, on_event_change=on_event, on_need_change=on_need)


def told(name: str) -> Any:
    """Give what came with the event or need that is being heard."""
    return (st.session_state.get(KEY) or {}).get(name)
