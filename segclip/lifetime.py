"""Stop when asked to as by Ctrl-C, and never outlive the process one works for.

Whatever segclip writes takes its place whole, so that a process may be ended at any moment: what
counts is that it ends soon, takes those it started with it, and says so.
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

GRACE = 2.0  # s from the signal until a process that is still there is ended
PARENT = (
    "SEGCLIP_PARENT"  # environment variable: the id of the process that a command must not outlive
)
_EVERY = 0.5  # s between looks at the parent, where the system does not tell of its end
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


class Stopped(KeyboardInterrupt):
    """Raise where SIGTERM arrives: what handles Ctrl-C handles it too."""


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a process that was interrupted: 128 and the signal's number, as
    shells have it.
    """
    return 128 + (signal.SIGTERM if isinstance(interrupt, Stopped) else signal.SIGINT)


def stop_on_signals() -> None:
    """Let SIGTERM raise Stopped in the main thread, as SIGINT raises KeyboardInterrupt, and both
    end this process.

    After GRACE it is ended in any case: Python hands a signal on only once the call into a library
    returns, and waits for its threads. For the main thread of a process that is a command. A signal
    that is ignored stays so.
    """
    caught = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    if signal.SIGTERM in caught:
        signal.signal(signal.SIGTERM, _raise_stopped)
    if sys.platform == "win32":  # which has neither
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(
        writer, warn_on_full_buffer=False
    )  # written at once, whatever the main thread is at
    threading.Thread(target=_end_in_time, args=(reader, caught), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """End this process when ``parent``, which started it, ends in whatever way; at once if it has
    ended already.

    On Linux the thread that started this process counts as its parent, and must live as long.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if sys.platform != "win32":  # a process there keeps the id of a parent that is gone
        if os.getppid() != parent:
            os._exit(1)
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def end_with_starter() -> None:
    """Do ``end_with_parent`` for the process that PARENT names; nothing where none is named."""
    parent = os.environ.pop(PARENT, "")  # not for those that this process starts
    if parent.isdecimal():
        end_with_parent(int(parent))


def end_with_launcher(name: str) -> None:
    """Do ``end_with_parent`` for a launcher that does not tell its id; ``name`` is in its command
    line.

    A process whose parent has ended is process 1's child, which in a container may be the launcher
    itself.
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


def _end_in_time(reader: int, caught: list[signal.Signals]) -> None:
    while (number := os.read(reader, 1)) and number[0] not in caught:
        pass
    if number:
        time.sleep(GRACE)
        os._exit(128 + number[0])


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os._exit(1)
