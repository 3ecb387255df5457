"""What docs/security.md promises names the tests that hold it, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_file_that_is_named_exists() -> None:
    for page in (ROOT / "SECURITY.md", ROOT / "docs" / "security.md"):
        text = page.read_text("utf-8")
        named = set(re.findall(r"`((?:tests|segclip|train|weights|docs)/[\w/.-]+\.\w+)`", text))
        named |= {
            str((page.parent / link).resolve().relative_to(ROOT))
            for link in re.findall(r"\]\(([^:)]+)\)", text)
        }
        assert named, page
        assert not [name for name in sorted(named) if not (ROOT / name).is_file()]


def test_every_promise_has_a_test() -> None:
    promises = (
        (ROOT / "docs" / "security.md")
        .read_text("utf-8")
        .partition("## Promises")[2]
        .partition("\n## ")[0]
    )
    parts = re.split(r"^\*\*", promises, flags=re.MULTILINE)[1:]
    assert len(parts) >= 8
    for part in parts:
        assert re.search(r"`tests/[\w/]+\.py`", part), part.splitlines()[0]
