"""Pickles of plain data are read as pickle reads them; all others are refused, and nothing runs."""

from __future__ import annotations

import datetime
import os
import pickle
import struct
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segclip.errors import BadTable
from segclip.files import pickles

SHARED = ["twice"]
PLAIN: list[Any] = [
    {
        "raw": "a café",
        "ids": [1, -2, 2**40, 2**2000],
        "box": [1.5, 2],
        "split": None,
        "crowd": False,
    },
    SHARED,
    SHARED,
    [True, {}, [], "", 255, 65535, -1e300, "long " * 100],
]
# {'raw': 'caf\xe9', 'sent': u'caf\xe9', 'ids': [1L, 2]}, as Python 2.7 wrote it with protocols 0, 2
PROTOCOL_0 = (
    b"(dp0\nS'raw'\np1\nS'caf\\xe9'\np2\nsS'sent'\np3\nVcaf\xe9\np4\nsS'ids'\np5\n(lp6\n"
    b"L1L\naI2\nas."
)
PROTOCOL_2 = (
    b"\x80\x02}q\x00(U\x03rawq\x01U\x04caf\xe9q\x02U\x04sentq\x03X\x05\x00\x00\x00caf\xc3\xa9"
    b"q\x04U\x03idsq\x05]q\x06(\x8a\x01\x01K\x02eu."
)


class Restored:
    """Restore itself from a state."""

    def __init__(self) -> None:
        self.state = 1


def read(folder: Path, data: bytes) -> Any:
    (folder / "refs.p").write_bytes(data)
    return pickles.read(folder / "refs.p", "the expressions")


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(BadTable) as refusal:
        read(folder, data)
    message = str(refusal.value)
    assert "refs.p" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    assert read(tmp_path, pickle.dumps(PLAIN, protocol=protocol)) == PLAIN


@pytest.mark.parametrize("data", [PROTOCOL_0, PROTOCOL_2])
def test_texts_of_python_2_are_decoded(data: bytes, tmp_path: Path) -> None:
    expected = {"raw": "café", "sent": "café", "ids": [1, 2]}
    assert read(tmp_path, data) == expected
    utf8 = data.replace(b"\\xe9", b"\\xc3\\xa9").replace(b"U\x04caf\xe9", b"U\x05caf\xc3\xa9")
    assert read(tmp_path, utf8) == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "held",
    [
        OrderedDict(a=1),
        {1, 2},
        (),
        (1, 2),
        Fraction(1, 2),
        datetime.date(2026, 1, 1),
        np.int64(3),
        np.zeros(2),
        Restored(),
        os.system,
        len,
        dict,
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Restored) else repr(value),
)
def test_anything_else_is_refused(held: Any, protocol: int, tmp_path: Path) -> None:
    assert "plain data" in refused(tmp_path, pickle.dumps([held], protocol=protocol))


DAMAGED = {
    "nothing": b"",
    "a text": b"ref_id,ann_id\n1,2\n",
    "an early end": pickle.dumps(PLAIN)[:40],
    "no end": pickle.dumps(PLAIN)[:-1],
    "an empty stack": b".",
    "an append to a number": b"K\x01K\x02a.",
    "a list as a key": b"}]K\x01s.",
    "a memo that is not there": b"h\x07.",
    "a memo of gigabytes": b"]r" + struct.pack("<I", 2**32 - 1) + b".",
    "a memo of gigabytes in digits": b"]p99999999999\n.",
    "a memo below 0": b"]p-1\n.",
    "a text of gigabytes": b"X" + struct.pack("<I", 2**32 - 1) + b"abc.",
    "a text of exabytes": b"\x8d" + struct.pack("<Q", 2**63) + b"abc.",
    "a number of thousands of digits": b"L" + b"9" * 10_000 + b"L\n.",
    "an extension": b"\x82\x01.",
    "a persistent id": b"Pabc\n.",
    "a buffer elsewhere": b"\x97.",
    "a class in a line": b"cposix\nsystem\n.",
    "an instance": b"(iposix\nsystem\n.",
    "a key of a million tuples": b"})" + b"\x85" * 10**6 + b"Ns.",
    "a frame of exabytes": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
    "a version to come": b"\x80\x63N.",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_pickle_is_one_line(kind: str, tmp_path: Path) -> None:
    refused(tmp_path, DAMAGED[kind])


def test_a_missing_file_a_folder_and_a_pipe_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "folder", "pipe", "a\0b"):
        with pytest.raises(BadTable, match="the expressions"):
            pickles.read(tmp_path / name, "the expressions")


def test_data_that_contains_itself_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, b"]q\x00h\x00a.")
    assert found[0] is found
