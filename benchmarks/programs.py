"""The server programs that are compared: how each is started on a model folder, and how it is asked for N tokens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from random_models import CONTEXT, gguf_file

PATIENCE = 240.0
SLOTS = 64
"""Answers at a time; what comes beyond waits."""

LONGEST = 2304
"""Tokens of the longest prompt and its answer."""


@dataclass(frozen=True)
class Program:
    """`body` makes the fields that ask for exactly so many tokens, sampled or not; `model` is the name clients send."""

    name: str
    command: Callable[[Path, int], list[str]]
    body: Callable[[int, bool], dict[str, Any]]
    model: Callable[[Path], str] = lambda _folder: "m"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A program that serves a model."""

    program: Program
    model: str
    folder: Path
    port: int
    pid: int

    def body(self, content: str, tokens: int, *, samples: bool = False, seed: int = 0) -> dict[str, Any]:
        """A streaming request for exactly so many tokens."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
            "seed": seed,
            **self.program.body(tokens, samples),
        }


def _sampling(samples: bool) -> dict[str, Any]:
    return {"temperature": 0.8, "top_p": 0.95} if samples else {"temperature": 0}


def _without_end(tokens: int, samples: bool) -> dict[str, Any]:
    """As many tokens at least as at most, where there is no `ignore_eos`."""
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.95} if samples else {"do_sample": False}
    lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    return {"generation_config": json.dumps({**how, **lengths})}


def _ignoring_end(_tokens: int, samples: bool) -> dict[str, Any]:
    return {**_sampling(samples), "ignore_eos": True}


def ours(python: str, *options: str) -> Program:
    return Program(
        "model-compose",
        lambda folder, port: [
            python, "-m", "modelcompose.clients.cli", "up", "--no-file", "--model", f"m={folder}", "--port", str(port),
            "--max-concurrent", str(SLOTS), "--no-webui", *options,
        ],
        _ignoring_end,
    )  # fmt: skip


def transformers(command: Path, *, batches: bool) -> Program:
    return Program(
        "transformers serve, batching" if batches else "transformers serve",
        lambda folder, port: [
            str(command), "serve", str(folder), "--port", str(port), "--host", "127.0.0.1",
            *(["--continuous-batching"] if batches else []),
        ],
        _without_end,
        str,
    )  # fmt: skip


def vllm(environment: Path) -> Program:
    environment = environment.absolute()
    return Program(
        "vLLM",
        lambda folder, port: [
            str(environment / "bin/python"), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
            "--served-model-name", "m", "--port", str(port), "--host", "127.0.0.1", "--max-model-len", str(CONTEXT),
        ],
        _ignoring_end,
        env={
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VLLM_CPU_KVCACHE_SPACE": "6",
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # all cores; its own choice leaves one idle
            "VLLM_NO_USAGE_STATS": "1",
        },
    )  # fmt: skip


def llama(command: Path) -> Program:
    return Program(
        "llama.cpp",
        lambda folder, port: [
            str(command), "-m", str(gguf_file(folder)), "--port", str(port), "--host", "127.0.0.1", "-a", "m",
            "-np", str(SLOTS), "-c", str(SLOTS * LONGEST), "-t", str(os.cpu_count()), "--no-webui",
        ],
        _ignoring_end,
    )  # fmt: skip


@contextmanager
def started(program: Program, folder: Path) -> Iterator[Running]:
    """The program, serving, until the context ends."""
    port = a_free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            program.command(folder, port),
            stdout=output,
            stderr=output,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **program.env},
        )
        try:
            _wait_until_ready(process, port, output)
            yield Running(program, program.model(folder), folder, port, process.pid)
        finally:
            _stop(process)


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, output: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            output.seek(0)
            raise SystemExit(f"{process.args!r} did not start:\n{output.read().decode(errors='replace')[-3000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


NAMES = ("ours", "transformers", "transformers-batching", "vllm", "llama")
"""What `--against` takes, and this server."""


def found(python: str = sys.executable, **given: Path | None) -> dict[str, Program]:
    """The programs that there are, by their names."""
    programs = {"ours": ours(python)}
    if (command := given.get("transformers")) is not None and command.exists():
        programs["transformers"] = transformers(command, batches=False)
        programs["transformers-batching"] = transformers(command, batches=True)
    if (environment := given.get("vllm")) is not None and environment.exists():
        programs["vllm"] = vllm(environment)
    if (command := given.get("llama")) is not None and command.exists():
        programs["llama"] = llama(command)
    return programs
