"""The script of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.samples import FIRST, TEXTS
from tests.app.browsing import ROOT
from tests.app.pages import SCRIPT


@pytest.mark.usefixtures("shared_studio")
def test_the_script_shows_the_first_page() -> None:
    page = AppTest.from_file(SCRIPT, default_timeout=30).run()
    assert not page.exception
    assert page.text_input[0].value == TEXTS[FIRST]


def test_the_script_finds_its_package_by_itself(tmp_path: Path) -> None:
    """Run it as Streamlit does, which knows neither the package nor its parent folder."""
    for name in ("streamlit_app.py", "__init__.py"):
        (tmp_path / "pages").mkdir(exist_ok=True)
        (tmp_path / "pages" / name).write_bytes((ROOT / "app" / name).read_bytes())
    (tmp_path / "pages" / "page.py").write_text("def show():\n    print('the page')\n")
    script = tmp_path / "pages" / "streamlit_app.py"
    done = subprocess.run(
        [sys.executable, str(script)], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout == "the page\n"
