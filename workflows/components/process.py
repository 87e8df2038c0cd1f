"""One process from its start to its end, with everything it started."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ...adapters.errors import ComposeError

MOST_OUTPUT = 16 * 1024 * 1024
"""Bytes that a process may write to either of its outputs."""

GRACE = 2.0
"""Seconds between being asked to end and being killed."""

_LOOK_EVERY = 0.01
_CHUNK = 64 * 1024


class Finished(msgspec.Struct, frozen=True):
    """What a process wrote, and how it ended; a negative exit code is a signal."""

    stdout: str
    stderr: str
    exit_code: int


async def run_process(words: Sequence[str], env: Mapping[str, str], folder: Path, timeout: float) -> Finished:
    """Run a program in a process group of its own, with nothing to read; no process of the group survives this call.

    Raises TimeoutError after `timeout` seconds, OSError if it cannot be started, ComposeError if it writes too much.
    """
    process = await _started(words, env, folder)
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await _read_both(process)
            return Finished(_text(stdout), _text(stderr), await process.wait())
    finally:
        await _end(process)


async def _read_both(process: Process) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    tasks = [asyncio.create_task(_read(stream)) for stream in (process.stdout, process.stderr)]
    try:
        stdout, stderr = await asyncio.gather(*tasks)
        return stdout, stderr
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(stream: asyncio.StreamReader) -> bytes:
    pieces = bytearray()
    while piece := await stream.read(_CHUNK):
        pieces += piece
        if len(pieces) > MOST_OUTPUT:
            raise ComposeError(f"the command wrote more than {MOST_OUTPUT} bytes")
    return bytes(pieces)


async def _started(words: Sequence[str], env: Mapping[str, str], folder: Path) -> Process:
    """Start a process; asyncio forgets one whose start is cancelled half-way, so this waits for the whole start."""
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=env, cwd=folder, start_new_session=True
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


async def _end(process: Process) -> None:
    """End what is left of the process group, kindly at first."""
    try:
        if not _has_ended(process):
            _signal(process, signal.SIGTERM)
            # `wait` would also wait for the pipes, which others may hold open.
            for _ in range(round(GRACE / _LOOK_EVERY)):
                if _has_ended(process):
                    break
                await asyncio.sleep(_LOOK_EVERY)
    finally:
        _signal(process, signal.SIGKILL)
        process._transport.close()  # type: ignore[attr-defined]
        await process.wait()


def _has_ended(process: Process) -> bool:
    return process.returncode is not None


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
