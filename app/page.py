"""Lay out the site: its pages, style and menu."""

from __future__ import annotations

import PIL.Image
import PIL.ImageDraw
import streamlit as st

import segclip

from . import files, session
from .state import Studio
from .views import classify, export, models, search, segment, train

_STYLE = """
<style>
[data-testid="stMainBlockContainer"] { padding: 4.2rem 1.4rem 2rem; max-width: 1280px; }
@media (max-width: 700px) { [data-testid="stMainBlockContainer"] { padding: 4rem .8rem 1rem; } }
</style>
"""


def show() -> None:
    """Show the page that the address names."""
    shared, _ = session.current()
    about = (
        f"segclip {segclip.__version__}: segment images by text, clicks and boxes. "
        "Nothing leaves this machine."
    )
    if shared.settings.source:
        about += f"\n\n[Source]({shared.settings.source})"
    st.set_page_config("segclip", _icon(), layout="wide", menu_items={"About": about})
    st.html(_STYLE)
    pages = [
        st.Page(segment.show, title="Segment", default=True),
        st.Page(export.show, title="Export", url_path="export"),
        st.Page(classify.show, title="Classify", url_path="classify"),
        st.Page(search.show, title="Search", url_path="search"),
        st.Page(train.show, title="Train", url_path="train"),
        st.Page(models.show, title="Models", url_path="models"),
    ]
    page = st.navigation(pages, position="top")
    if st.session_state.pop("goto", ""):
        st.switch_page(pages[0])
    page.run()
    _footer(shared)


def _footer(shared: Studio) -> None:
    """Offer the running source code, as the AGPL of FastSAM requires of a server."""
    notice, source = st.columns([6, 1], vertical_alignment="center")
    notice.caption("Everything stays on the machine that serves this page.")
    if shared.settings.source:
        source.link_button("Source", shared.settings.source, type="tertiary", width="stretch")
    elif not files.source_files():
        source.caption("Source: ask the operator of this server")
    else:
        source.download_button(
            "Source",
            files.source,
            "segclip-source.zip",
            type="tertiary",
            on_click="ignore",
            width="stretch",
        )


def _icon() -> PIL.Image.Image:
    """Draw the tab's icon, a mask in its box; an icon by name would be fetched from elsewhere."""
    icon = PIL.Image.new("RGBA", (64, 64))
    pen = PIL.ImageDraw.Draw(icon)
    pen.rounded_rectangle((3, 3, 60, 60), 14, outline="#d6336c", width=6)
    pen.ellipse((17, 17, 46, 46), "#d6336c")
    return icon
