"""Options that several recipes have are declared in one place."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

TRAIN = Path(__file__).parents[3] / "train"


def test_no_help_text_is_declared_twice() -> None:
    helps: Counter[str] = Counter()
    for file in sorted(TRAIN.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "help":
                helps[ast.unparse(node.value)] += 1
    assert len(helps) > 40
    assert [text for text, count in helps.items() if count > 1] == []
