"""Runs one command and leaves nothing of it behind, however the program that started this one ends.

    python -I guard.py SECONDS DESCRIPTOR WORD...

A program by itself, started by `process.py`. It ends the command when its standard input ends, which is when the
process that holds the other end is gone, even by `kill -9`; and when it is told to by a signal. What the command has
started is asked to end too and killed after SECONDS, sooner if the command has ended by itself: that is told at once,
by closing DESCRIPTOR. The exit status is the command's, 128 + N after signal N.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SECONDS_FOR_ORPHANS = 2.0
SECONDS_TO_KILL = 5.0
SECONDS_BETWEEN_LOOKS = 0.05


class Guarded:
    """The command's process and all that comes from it; needs `adopt_orphans` to find those that left the group."""

    def __init__(self, words: list[str]) -> None:
        # A group of its own in this process's session: so the group can be signalled without this process, and whoever
        # finds this process killed can still find the rest by its session.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (there are no threads here)
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How the command ended, -N by signal N; None while it runs."""
        return self._process.returncode

    def reap(self) -> None:
        """Take note of the processes that have ended."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self._process.returncode = os.waitstatus_to_exitcode(ended[1])

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self, patience: float) -> None:
        """End whatever is left, kindly for `patience` seconds: the command first, then what it leaves behind."""
        deadline = time.monotonic() + patience
        self.signal_group(signal.SIGTERM)
        while self.status is None and self._left() and time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._signal_each(signal.SIGTERM)
        while self._left() and time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        deadline = time.monotonic() + SECONDS_TO_KILL
        while self._left() and time.monotonic() < deadline:
            self.signal_group(signal.SIGKILL)
            self._signal_each(signal.SIGKILL)
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _signal_each(self, number: signal.Signals) -> None:
        for pid in self._left():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _left(self) -> list[int]:
        """The processes that are still there."""
        import psutil

        self.reap()
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found


def main() -> int:
    """Run the command that the arguments give."""
    patience, descriptor, words = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    _adopt_orphans()
    woken = _wake_on_signals()
    try:
        guarded = Guarded(words)
    except OSError as error:
        print(f"{words[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127 if isinstance(error, FileNotFoundError) else 126
    while guarded.status is None:
        readable, _, _ = select.select([sys.stdin, woken], [], [])
        if sys.stdin in readable or set(os.read(woken, 4096)) & _TO_END:
            break
        guarded.reap()
    os.close(descriptor)
    guarded.end(patience if guarded.status is None else min(patience, SECONDS_FOR_ORPHANS))
    status = guarded.status
    return 128 + signal.SIGKILL if status is None else 128 - status if status < 0 else status


_TO_END = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def _wake_on_signals() -> int:
    """A file descriptor that gets a byte for each signal: its number."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*_TO_END, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    return reader


def _adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, so that all of them can be found; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _die_with_parent() -> None:
    """Let at least the command itself go when this process is killed; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
