"""Tables made by chance, and tables with chance damage: read whole, or refused in one line that
names the place.

SEGCLIP_FUZZ_EXAMPLES says how many of each are tried, SEGCLIP_FUZZ_SEED (or --hypothesis-seed)
which.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from segclip.batch import plan
from segclip.batch.plan import Ask
from segclip.errors import BadPrompt, BadTable
from segclip.evaluation.retrieval import read_captions
from segclip.files import captions, lines, tables

EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "60"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "17"))
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = st.from_regex(r"[a-z0-9][a-z0-9 _\-]{0,8}\.(jpg|png)", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).map(
    lambda text: " ".join(text.split())
).filter(bool)  # fmt: skip
ROWS = st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=6)
ODD = st.sampled_from(
    [
        '"',
        "'",
        ",",
        ";",
        "\t",
        "|",
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\ufeff",
        "[",
        "{",
        "null",
        '"a.jpg"',
        "[[",
        "NaN",
        "1e999",
        "\\ud800",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a.jpg", "1,2,3,4"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def refusable(file: Path) -> None:
    """Read a table in every way there is: each answers, or refuses in one line."""
    for read in (
        lambda: list(tables.read(file, plan.COLUMNS)),
        lambda: plan.read(file, Ask(("x",))),
        lambda: list(captions.read(file)),
        lambda: read_captions(file),
        lambda: lines.read(file, "the list"),
    ):
        message = ""
        try:
            read()
        except (BadTable, BadPrompt) as error:
            message = str(error)
        assert "\n" not in message
        assert len(message) < 1000 + len(str(file))


@pytest.mark.parametrize("mark", [",", "\t", "|", ";"])
@seed(SEED)
@MANY
@given(rows=ROWS, bom=st.booleans(), end=st.sampled_from(["\n", "\r\n"]), index=st.booleans())
@example(rows=[("a.jpg", '"')], bom=False, end="\n", index=False)
@example(rows=[("a.jpg", "a\u2028b")], bom=False, end="\n", index=True)
def test_what_a_program_wrote_is_read_as_it_was(
    tmp_path: Path, mark: str, rows: list[tuple[str, str]], bom: bool, end: str, index: bool
) -> None:
    """Fault 17.18: a table written by the rules loses no row and no character, with a mark or an
    index column.
    """
    written = io.StringIO()
    table = csv.writer(written, delimiter=mark, lineterminator=end)
    table.writerow([*([""] if index else []), "image", "caption"])
    table.writerows([*([number] if index else []), *row] for number, row in enumerate(rows))
    file = tmp_path / "t.csv"
    file.write_bytes((("\ufeff" if bom else "") + written.getvalue()).encode())
    assert [(row.image, row.text) for row in captions.read(file)] == [
        (name.strip(), " ".join(text.split())) for name, text in rows
    ]


@pytest.mark.parametrize("mark", [",", "\t", "|", ";"])
@seed(SEED)
@MANY
@given(
    count=st.integers(2, 6),
    at=st.integers(0, 5),
    tail=st.sampled_from(["", '"', ' 6"', '" x', '","', "x"]),
)
def test_no_row_is_swallowed(tmp_path: Path, mark: str, count: int, at: int, tail: str) -> None:
    """Fault 17.18: every row of a table with an open quote arrives, or the row is named."""
    rows = [f"{number}.jpg{mark}thing" for number in range(count)]
    at %= count
    rows[at] = f'{at}.jpg{mark}"thing'
    rows[-1] += tail
    file = tmp_path / "t.csv"
    file.write_text("\n".join([f"image{mark}caption", *rows]))
    found, message = [], ""
    try:
        found = [row.image for row in captions.read(file)]
    except BadTable as error:
        message = str(error)
    assert f"row {at + 1} " in message or found == [f"{number}.jpg" for number in range(count)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl", ".json"])
@seed(SEED)
@MANY
@given(
    rows=ROWS,
    damage=st.lists(st.tuples(st.integers(0, 400), ODD), max_size=4),
    cut=st.integers(0, 400) | st.none(),
)
def test_a_damaged_table_is_read_or_refused(
    tmp_path: Path,
    suffix: str,
    rows: list[tuple[str, str]],
    damage: list[tuple[int, str]],
    cut: int | None,
) -> None:
    """Fault 17.15."""
    objects = [{"image": name, "caption": text} for name, text in rows]
    whole = {
        "images": [
            {"filename": name, "split": "test", "sentences": [{"raw": text}]} for name, text in rows
        ]
    }
    content = {
        ".jsonl": "\n".join(map(json.dumps, objects)),
        ".json": json.dumps(whole),
    }.get(suffix, "\n".join(["image,texts", *(f"{name},{text}" for name, text in rows)]))
    for at, odd in damage:
        content = content[:at] + odd + content[at:]
    file = tmp_path / f"t{suffix}"
    file.write_bytes(content.encode()[:cut])
    refusable(file)


@seed(SEED)
@MANY
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["image", "texts", "boxes", "points", "caption", "split", "x"]), VALUES
        )
    )
)
def test_rows_of_any_values_are_read_or_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Fault 17.15: values of any type, in lines and as a whole file."""
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refusable(tmp_path / "t.jsonl")
    for name, table in (
        ("t.json", {"images": rows, "annotations": rows}),
        ("u.json", {"images": rows}),
        ("v.json", rows),
    ):
        (tmp_path / name).write_text(json.dumps(table))
        refusable(tmp_path / name)


@seed(SEED)
@MANY
@given(content=st.binary(max_size=300))
@example(content=b"\xef\xbb\xbf")
@example(content=b"\xff\xfe\x00")
def test_bytes_of_any_kind_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    for suffix in (".csv", ".jsonl", ".json", ".txt"):
        (tmp_path / f"t{suffix}").write_bytes(content)
        refusable(tmp_path / f"t{suffix}")
