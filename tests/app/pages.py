"""Open single pages without a browser."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from app.state import Studio, Work
from tests.app.browsing import ROOT

SCRIPT = str(ROOT / "app" / "streamlit_app.py")


HOSTILE = "![x](https://evil.test/x.png)"


def work_of(page: AppTest, studio: Studio) -> Work:
    work = studio.find(page.session_state["work"])
    assert work is not None
    return work


def show(name: str) -> AppTest:
    """Open a single page: tests cannot switch to a function page of the navigation."""
    source = f"from app.views import {name}\n{name}.show()\n"
    return AppTest.from_string(source, default_timeout=30).run()


def markdown_of(page: AppTest) -> list[str]:
    """Return every text of a page that Streamlit renders as Markdown."""
    texts = [
        one.value
        for kind in ("markdown", "caption", "error", "info", "success")
        for one in getattr(page, kind)
    ]
    texts += [one.proto.text for one in page.get("progress")]
    return texts + [image.caption for one in page.get("image") for image in one.proto.imgs]


def button(page: AppTest, label: str) -> object:
    return next(one for one in page.button if one.label == label)
