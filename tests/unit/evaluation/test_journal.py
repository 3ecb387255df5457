"""A journal of outcomes reads back, whatever stopped the run that wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segclip.errors import BadIndex, NotWritable
from segclip.evaluation.expressions import ExpressionOutcome
from segclip.evaluation.journal import OutcomeJournal

FIRST = ExpressionOutcome("0.0", 1, 1, 30, 100, (), 0.5, True)
WRONG_KIND = (
    b'{"settings": "one", "key": 5, "targets": 1, "answers": 1, "intersection": 1, "union": 1, '
    b'"matched": [], "best": 0, "chosen": false}\n'
)
SECOND = ExpressionOutcome("0.1", 2, 3, 0, 7, (0.25, 0.125))


def test_outcomes_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.journal"
    OutcomeJournal(file, "one").add([FIRST, SECOND])
    assert OutcomeJournal(file, "one").outcomes == {"0.0": FIRST, "0.1": SECOND}


def test_outcomes_of_other_settings_are_kept_and_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    OutcomeJournal(file, "one").add([FIRST])
    other = OutcomeJournal(file, "two")
    assert not other.outcomes
    other.add([replace(FIRST, union=200)])
    assert OutcomeJournal(file, "one").outcomes == {"0.0": FIRST}
    assert OutcomeJournal(file, "two").outcomes["0.0"].union == 200


def test_a_line_cut_at_any_byte_is_dropped_and_the_journal_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    OutcomeJournal(file, "one").add([FIRST, SECOND])
    data = file.read_bytes()
    begin = data.index(b"\n") + 1
    for end in range(begin, len(data)):
        file.write_bytes(data[:end])
        journal = OutcomeJournal(file, "one")
        assert journal.outcomes == {"0.0": FIRST}
        journal.add([SECOND])
        assert file.read_bytes() == data


@pytest.mark.parametrize(
    "content",
    [
        b"precious\n",
        b"precious",
        b'{"a": 1}\n',
        b"\xff\n",
        b'{"settings": "one"}\n',
        WRONG_KIND,
    ],
)
def test_another_file_is_neither_read_nor_changed(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    file.write_bytes(content)
    with pytest.raises(BadIndex, match="delete"):
        OutcomeJournal(file, "one")
    assert file.read_bytes() == content


def test_a_link_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(NotWritable):
        OutcomeJournal(tmp_path / "link", "one")
    with pytest.raises(NotWritable):
        OutcomeJournal(tmp_path / "precious" / "deeper", "one")
