"""The ``segclip app`` command: run the web server until it exits."""

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
from .options import Offline

# return large freed arrays to the system at once, and keep few heaps of small ones
_GLIBC = {"MALLOC_ARENA_MAX": "4", "MALLOC_MMAP_THRESHOLD_": "4000000"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServerOptions:
    """Options of the server, and its initial models."""

    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8501
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; 0.0.0.0 accepts every machine of the network."),
    ] = "127.0.0.1"
    preset: Annotated[
        str,
        typer.Option(
            help="Initial preset for text prompts: mini, photo or photo-large; or a proposer name, "
            "together with --encoder."
        ),
    ] = "mini"
    encoder: Annotated[
        str | None,
        typer.Option(help="Initial encoder instead of the preset's, such as file:runs/mine."),
    ] = None
    clicks: Annotated[str, typer.Option(help="Initial preset for clicks and boxes.")] = "mini-sam"
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder that the Search page may index and show. Default: the samples."),
    ] = None
    runs: Annotated[
        Path | None, typer.Option(help="Folder of training runs. Default: runs/ of the clone.")
    ] = None
    api: Annotated[bool, typer.Option("--api", help="Also serve the HTTP API, under /api.")] = False
    upload_mb: Annotated[int, typer.Option(help="Largest upload, in MB.", min=1, max=200)] = 20
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name by which browsers may reach the server, such as a proxy's; repeatable.",
        ),
    ] = None
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = (
        True
    )
    offline: Offline = False
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Address of this server's source code, linked in the menu."
        ),
    ] = None

    def environment(self) -> dict[str, str]:
        """Return the environment variables from which the server reads its settings."""
        from .. import loading, registry, weights

        if self.encoder is None:
            registry.choose(loading.PRESETS, self.preset, "preset")
        elif self.encoder.startswith("file:"):
            weights.locate(self.encoder)  # a missing file is an error now, not at the first query
        variables = {
            "SEGCLIP_APP_WORDS": " + ".join(loading.pair(self.preset, self.encoder))
            if self.encoder
            else self.preset,
            "SEGCLIP_APP_CLICKS": registry.choose(loading.PRESETS, self.clicks, "preset")
            and self.clicks,
            "SEGCLIP_APP_PHOTOS": str(self.photos.absolute()) if self.photos else "",
            "SEGCLIP_APP_RUNS": str(self.runs.absolute()) if self.runs else "",
            "SEGCLIP_APP_UPLOAD_MB": str(self.upload_mb),
            "SEGCLIP_APP_SOURCE": self.source or "",
            "SEGCLIP_APP_ALONE": "1" if self.host in LOOPBACK else "0",
            "SEGCLIP_APP_API": "1" if self.api else "0",
            # a path in another machine's query is none of the server's files
            "SEGCLIP_CONCEPT_FILES": "1" if self.host in LOOPBACK else "0",
            "SEGCLIP_APP_HOSTS": " ".join(self.allow_host or ()),
        }
        return variables | ({"SEGCLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} if self.offline else {})

    def command(self, folder: Path) -> list[str]:
        """Return the command that starts the server."""
        options = {
            "server.address": self.host,
            "server.port": self.port,
            "server.headless": str(not self.browser).lower(),
            "server.maxUploadSize": 200,
            "browser.gatherUsageStats": "false",
            # the address to print; without it, Streamlit looks it up on an external server
            "browser.serverAddress": "localhost" if self.host in ("0.0.0.0", "::") else self.host,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "streamlit", "run", str(folder / "server.py"), *flags]


def run(options: ServerOptions) -> int:
    """Run the server until it exits; on POSIX it replaces this process.

    Raises BadPrompt, Unsupported.
    """
    if options.photos and not options.photos.is_dir():
        raise BadPrompt(f"--photos {options.photos}: no such folder")
    if options.api and find_spec("fastapi") is None:
        raise Unsupported("the HTTP API needs FastAPI: pip install 'segclip[api]'")
    _check_address(options.host, options.port)
    environment = {**_GLIBC, **os.environ, **options.environment()}
    command = options.command(_folder())
    if os.name == "posix":
        os.execve(command[0], command, environment)  # so that signals reach the server
    return subprocess.run(command, env=environment, check=False).returncode


def _check_address(host: str, port: int) -> None:
    """Raise BadPrompt where the server could not listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            if os.name == "posix":  # as servers do; on Windows two could then listen
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = (
            "choose another port"
            if taken
            else "use 127.0.0.1, 0.0.0.0 or an address of this machine"
        )
        raise BadPrompt(
            f"--host {host} --port {port}: cannot listen there, {reason}; {advice}"
        ) from None


def _folder() -> Path:
    """Return the folder of the pages: the installed one, else the repository's."""
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
            f"the pages of the app are not installed beside segclip in {root}; reinstall segclip"
        )
    return found
