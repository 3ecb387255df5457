"""Handle SIGTERM like Ctrl-C, and end a process together with its parent.

Files are written atomically, so a process may be killed at any moment. What matters is that it
ends soon, ends its child processes too, and returns the matching exit code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

GRACE = 2.0  # s from the signal until a process that still runs is killed
PARENT = "SEGCLIP_PARENT"  # environment variable: PID of the process a command must not outlive
_POLL_INTERVAL = 0.5  # s between checks of the parent, where the system sends no notification
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


class Stopped(KeyboardInterrupt):
    """SIGTERM as an exception, so that Ctrl-C handlers handle it too."""


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of an interrupted process: 128 plus the signal number, as in shells."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Stopped) else signal.SIGINT)


def stop_on_signals() -> None:
    """Make SIGTERM raise Stopped in the main thread, and end the process GRACE after either signal.

    SIGINT raises KeyboardInterrupt, as usual. The forced end is needed because Python delivers a
    signal only once a library call returns, and waits for its threads. Call it from the main thread
    of a command. An ignored signal stays ignored.
    """
    caught = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    if signal.SIGTERM in caught:
        signal.signal(signal.SIGTERM, _raise_stopped)
    if sys.platform == "win32":  # which lacks POSIX signals and non-blocking pipes
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # written at once, whatever the main thread is doing
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_exit_after_grace, args=(reader, caught), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """End this process when ``parent``, which started it, ends; at once if it already has.

    On Linux the thread that started this process counts as its parent, and must live as long.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if sys.platform != "win32":  # where getppid keeps returning the id of an ended parent
        if os.getppid() != parent:
            os._exit(1)
        threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def end_with_starter() -> None:
    """Call ``end_with_parent`` for the process that PARENT names; do nothing if it is unset."""
    parent = os.environ.pop(PARENT, "")  # child processes must not inherit it
    if parent.isdecimal():
        end_with_parent(int(parent))


def end_with_launcher(name: str) -> None:
    """Call ``end_with_parent`` for a launcher of unknown id, with ``name`` in its command line.

    A process whose parent has ended becomes a child of process 1, which in a container may be the
    launcher itself.
    """
    parent = os.getppid()
    if parent == 1 and name.encode() not in _command_line(1):
        os._exit(1)
    end_with_parent(parent)


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _exit_after_grace(reader: int, caught: list[signal.Signals]) -> None:
    while (number := os.read(reader, 1)) and number[0] not in caught:
        pass
    if number:
        time.sleep(GRACE)
        os._exit(128 + number[0])


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_INTERVAL)
    os._exit(1)
