"""The ``segclip app`` command: start the server of the browser's pages, and stay until it ends."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ..errors import BadPrompt, Unsupported

# large arrays are handed back to the system when they are freed, and few heaps keep the small ones
_GLIBC = {"MALLOC_ARENA_MAX": "4", "MALLOC_MMAP_THRESHOLD_": "4000000"}


@dataclass(frozen=True)
class Serving:
    """How the server runs, and what answers."""

    port: Annotated[int, typer.Option(help="Port of this machine.", min=1, max=65535)] = 8501
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; 0.0.0.0 lets every machine of the network in."),
    ] = "127.0.0.1"
    preset: Annotated[
        str,
        typer.Option(
            help="Answers texts at first: mini, photo, photo-large; or a proposer, with --encoder."
        ),
    ] = "mini"
    encoder: Annotated[
        str | None,
        typer.Option(help="Reads texts at first instead of the preset's, such as file:runs/mine."),
    ] = None
    clicks: Annotated[str, typer.Option(help="Preset that answers clicks and boxes at first.")] = (
        "mini-sam"
    )
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder the Search page may index and show; the samples if left out."),
    ] = None
    runs: Annotated[
        Path | None, typer.Option(help="Folder of training runs; runs/ of the clone if left out.")
    ] = None
    api: Annotated[bool, typer.Option("--api", help="Serve the HTTP API too, under /api.")] = False
    upload_mb: Annotated[int, typer.Option(help="Largest upload.", min=1, max=200)] = 20
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name by which browsers may reach the server, such as a proxy's; repeatable.",
        ),
    ] = None
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where this server's source code is offered; shown in the menu."
        ),
    ] = None

    def environment(self) -> dict[str, str]:
        """Give what the server reads its settings from."""
        from .. import loading, registry, weights

        if self.encoder is None:
            registry.choose(loading.PRESETS, self.preset, "preset")
        elif self.encoder.startswith("file:"):
            weights.locate(self.encoder)  # what is not there is told now, not to the first who asks
        told = {
            "SEGCLIP_APP_WORDS": " + ".join(loading.pair(self.preset, self.encoder))
            if self.encoder
            else self.preset,
            "SEGCLIP_APP_CLICKS": registry.choose(loading.PRESETS, self.clicks, "preset")
            and self.clicks,
            "SEGCLIP_APP_PHOTOS": str(self.photos.absolute()) if self.photos else "",
            "SEGCLIP_APP_RUNS": str(self.runs.absolute()) if self.runs else "",
            "SEGCLIP_APP_UPLOAD_MB": str(self.upload_mb),
            "SEGCLIP_APP_SOURCE": self.source or "",
            "SEGCLIP_APP_ALONE": "1" if self.host in ("127.0.0.1", "localhost", "::1") else "0",
            "SEGCLIP_APP_API": "1" if self.api else "0",
            "SEGCLIP_APP_HOSTS": " ".join(self.allow_host or ()),
        }
        return told | ({"SEGCLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} if self.offline else {})

    def command(self, folder: Path) -> list[str]:
        """Give the command that starts the server."""
        options = {
            "server.address": self.host,
            "server.port": self.port,
            "server.headless": str(not self.browser).lower(),
            "server.maxUploadSize": 200,
            "browser.gatherUsageStats": "false",
            # what is printed; left out, Streamlit asks a server elsewhere for this machine's
            # address
            "browser.serverAddress": "localhost" if self.host in ("0.0.0.0", "::") else self.host,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "streamlit", "run", str(folder / "server.py"), *flags]


def run(serving: Serving) -> int:
    """Serve until the server ends; on POSIX this process becomes the server. Raises BadPrompt,
    Unsupported.
    """
    if serving.photos and not serving.photos.is_dir():
        raise BadPrompt(f"--photos {serving.photos}: no such folder")
    if serving.api and find_spec("fastapi") is None:
        raise Unsupported("the HTTP API needs FastAPI: pip install 'segclip[api]'")
    _check_address(serving.host, serving.port)
    environment, command = (
        {**_GLIBC, **os.environ, **serving.environment()},
        serving.command(_folder()),
    )
    if os.name == "posix":
        os.execve(
            command[0], command, environment
        )  # the server takes this process over, and hears its signals
    return subprocess.run(command, env=environment, check=False).returncode


def _check_address(host: str, port: int) -> None:
    """Listen for a moment. Raises BadPrompt where the server could not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            if os.name == "posix":  # as servers do; on Windows it would let two listen
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = (
            "choose another port"
            if taken
            else "give 127.0.0.1, 0.0.0.0, or an address of this machine"
        )
        raise BadPrompt(
            f"--host {host} --port {port}: cannot listen there, {reason}; {advice}"
        ) from None


def _folder() -> Path:
    """Give the folder of the pages: the installed one, else the repository's."""
    root = Path(__file__).resolve().parents[2]
    found = next(
        (
            root / name
            for name in ("segclip_app", "app")
            if (root / name / "streamlit_app.py").is_file()
        ),
        None,
    )
    if found is None:
        raise Unsupported(
            f"the pages are not installed beside segclip in {root}; install segclip again"
        )
    return found
