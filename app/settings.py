"""Settings of the server, which ``segclip app`` passes as environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from streamlit.config import get_option

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ROOT = Path(__file__).resolve().parent.parent
_WHEEL_SAMPLES = _ROOT / "segclip_samples"
SAMPLES = _WHEEL_SAMPLES if _WHEEL_SAMPLES.is_dir() else _ROOT / "samples"


@dataclass(frozen=True)
class Settings:
    """The initial models, and the limits per user.

    words, clicks: presets for texts, and for points and boxes. upload_mb, max_pixels: of one image.
    works: number of works kept, least recently used first to go. kept_mb: memory for them, and as
    much again for the API's images. photos: folder that the Search page may index and show.
    indexes: folder of indexes. runs: folder of training runs. source: URL of the running source
    code. alone: only this machine is served, so its user may also fetch weights, load files, index
    and train. api: serve the HTTP API. hosts: further host names of the server. batch_mb: images
    unpacked for all batches together. scratch: folder for them; "" for one in memory.
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
        """Read SEGCLIP_APP_WORDS, _CLICKS, _UPLOAD_MB and so on, named after the fields."""

        def variable(name: str, default: str) -> str:
            return os.environ.get(f"SEGCLIP_APP_{name}") or default

        return cls(
            variable("WORDS", cls.words),
            variable("CLICKS", cls.clicks),
            int(variable("UPLOAD_MB", str(cls.upload_mb))),
            int(variable("MAX_PIXELS", str(cls.max_pixels))),
            int(variable("WORKS", str(cls.works))),
            int(variable("KEPT_MB", str(cls.kept_mb))),
            int(variable("BATCH_MB", str(cls.batch_mb))),
            Path(variable("PHOTOS", str(SAMPLES))),
            runs=Path(variable("RUNS", str(cls.runs))),
            source=variable("SOURCE", cls.source),
            alone=variable("ALONE", "1") == "1" and _is_loopback(get_option("server.address")),
            api=variable("API", "0") == "1",
            hosts=tuple(variable("HOSTS", "").split()),
            scratch=variable("SCRATCH", cls.scratch),
        )


def _is_loopback(address: str | None) -> bool:
    """Return whether an address is local; None stands for the app's own configuration."""
    return address is None or address in LOOPBACK
