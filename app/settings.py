"""Read how the server was started: ``segclip app`` hands its options on as environment
variables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from streamlit.config import get_option

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ROOT = Path(__file__).resolve().parent.parent
SAMPLES = (
    _ROOT / "segclip_samples" if (_ROOT / "segclip_samples").is_dir() else _ROOT / "samples"
)  # in a wheel, or not


@dataclass(frozen=True)
class Settings:
    """Say which models answer, and how much one person may ask of the server.

    words, clicks: presets that answer texts and places. upload_mb, max_pixels: of one picture.
    works: how many people's pictures are kept; the one longest unused goes first. kept_mb: of
    memory for them, and as much again for the API's. photos: the folder the Search page may index
    and show. indexes: where indexes lie. runs: the folder of training runs. source: address of the
    source code of what is running. alone: only this machine is served, so who is there may also
    fetch weights, load files, index and train. api: the HTTP API is served too. hosts: names by
    which browsers may reach the server besides its addresses. batch_mb: of images unpacked for
    batches, all together. scratch: the folder they are unpacked to; "" for one in memory.
    """

    words: str = "mini"
    clicks: str = "mini-sam"
    upload_mb: int = 20
    max_pixels: int = 50_000_000
    works: int = 16
    kept_mb: int = 500
    batch_mb: int = 2000
    photos: Path = SAMPLES
    indexes: Path = Path(os.environ.get("SEGCLIP_HOME") or "~/.cache/segclip").expanduser() / "app"
    runs: Path = _ROOT / "runs"
    source: str = ""
    alone: bool = True
    api: bool = False
    hosts: tuple[str, ...] = ()
    scratch: str = ""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read SEGCLIP_APP_WORDS, _CLICKS, _UPLOAD_MB and so on: the fields' names in capitals."""

        def told(name: str, default: str) -> str:
            return os.environ.get(f"SEGCLIP_APP_{name}") or default

        return cls(
            told("WORDS", cls.words),
            told("CLICKS", cls.clicks),
            int(told("UPLOAD_MB", str(cls.upload_mb))),
            int(told("MAX_PIXELS", str(cls.max_pixels))),
            int(told("WORKS", str(cls.works))),
            int(told("KEPT_MB", str(cls.kept_mb))),
            int(told("BATCH_MB", str(cls.batch_mb))),
            Path(told("PHOTOS", str(SAMPLES))),
            runs=Path(told("RUNS", str(cls.runs))),
            source=told("SOURCE", cls.source),
            alone=told("ALONE", "1") == "1" and _is_loopback(get_option("server.address")),
            api=told("API", "0") == "1",
            hosts=tuple(told("HOSTS", "").split()),
            scratch=told("SCRATCH", cls.scratch),
        )


def _is_loopback(address: str | None) -> bool:
    """Tell whether Streamlit listens to this machine alone; None is what the pages' own
    configuration says.
    """
    return address is None or address in LOOPBACK
