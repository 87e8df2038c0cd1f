"""This server beside `transformers serve`, on the same model folder, with the same client, in one run.

    python benchmarks/serve.py [FOLDER] [--rounds 5] [--tokens 128] [--clients 8] [--starts 3]

The folder is the bundled model's unless another is given. Both servers run at the same time and are asked in turns, so
that whatever else the machine does is the same for both. Every answer has exactly the asked number of tokens. Prints a
Markdown table of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from modelcompose.adapters.bundled import MODEL_FOLDER

PROMPT = "Explain quantum computing in simple terms."
PATIENCE = 180.0


@dataclass(frozen=True)
class Program:
    """A server program: how to start it, and how to ask it for exactly so many tokens."""

    name: str
    command: Callable[[Path, int], list[str]]
    exactly: Callable[[int], dict[str, Any]]
    model: Callable[[Path], str]


def _without_end(tokens: int) -> dict[str, Any]:
    """transformers serve has no `ignore_eos`; as many tokens at least as at most do the same."""
    return {"generation_config": json.dumps({"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens})}


OURS = Program(
    "model-compose",
    lambda folder, port: [
        sys.executable, "-m", "modelcompose.clients.cli", "up", "--model", f"m={folder}", "--port", str(port),
        "--no-webui",
    ],
    lambda _tokens: {"ignore_eos": True},
    lambda _folder: "m",
)  # fmt: skip
THEIRS = Program(
    "transformers serve",
    lambda folder, port: [
        str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port),
        "--host", "127.0.0.1",
    ],
    _without_end,
    str,
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Seconds from the process's start until `/health` answers at all, until it says 200, and until the first token."""

    answering: float
    ready: float
    first_token: float


@dataclass(frozen=True)
class Timing:
    """One streamed answer: seconds to the first token and to the last."""

    first: float
    last: float


class Running:
    """A server program that runs."""

    def __init__(self, program: Program, folder: Path, port: int) -> None:
        self.program = program
        self._folder = folder
        self.url = f"http://127.0.0.1:{port}"

    def status(self) -> int | None:
        """The status of `/health`, if it answers."""
        try:
            return httpx2.get(f"{self.url}/health", timeout=5).status_code
        except httpx2.TransportError:
            return None

    def ask(self, tokens: int) -> Timing:
        """Stream one answer of so many tokens."""
        body = {
            "model": self.program.model(self._folder),
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "max_tokens": tokens,
            **self.program.exactly(tokens),
        }
        began = time.perf_counter()
        first = last = made = None
        with (
            self._patient(),
            httpx2.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=PATIENCE) as response,
        ):
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    if response.is_error:
                        raise SystemExit(f"{self.program.name}: {line}")
                    continue
                now = time.perf_counter() - began
                chunk = json.loads(line[len("data: ") :])
                if "error" in chunk:
                    raise SystemExit(f"{self.program.name}: {chunk['error']}")
                made = (chunk.get("usage") or {}).get("completion_tokens", made)
                if any(_has_text(choice["delta"]) for choice in chunk["choices"]):
                    first, last = first or now, now
        if first is None or last is None or made != tokens:
            raise SystemExit(f"{self.program.name} made {made} tokens, not {tokens}")
        return Timing(first, last)

    @contextmanager
    def _patient(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise SystemExit(f"{self.program.name} did not finish an answer: {error!r}") from None

    def ask_at_once(self, clients: int, tokens: int) -> float:
        """Tokens a second that so many clients get together."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(lambda _: self.ask(tokens), range(clients)))
        return clients * tokens / (time.perf_counter() - began)


def _has_text(delta: dict[str, Any]) -> bool:
    return any(delta.get(name) for name in ("content", "reasoning_content", "reasoning"))


@contextmanager
def started(program: Program, folder: Path) -> Iterator[tuple[Running, Start]]:
    """The program, ready, and how long that took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            program.command(folder, port), stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        try:
            running = Running(program, folder, port)
            answering = _seconds_until(lambda: running.status() is not None, began, process, output)
            ready = _seconds_until(lambda: running.status() == 200, began, process, output)
            running.ask(1)
            yield running, Start(answering, ready, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _seconds_until(condition: Callable[[], bool], began: float, process: subprocess.Popen[bytes], output: Any) -> float:
    while not condition():
        if process.poll() is not None or time.perf_counter() - began > PATIENCE:
            output.seek(0)
            raise SystemExit(f"{process.args!r} did not start:\n{output.read().decode(errors='replace')[-3000:]}")
        time.sleep(0.01)
    return time.perf_counter() - began


def measure(folder: Path, rounds: int, tokens: int, clients: int, starts: int) -> list[tuple[str, float, float]]:
    """Rows of the table: what, ours, theirs."""
    begins: dict[str, list[Start]] = {OURS.name: [], THEIRS.name: []}
    for _ in range(starts - 1):
        for program in (OURS, THEIRS):
            with started(program, folder) as (_, start):
                begins[program.name].append(start)
    with started(OURS, folder) as (ours, our_start), started(THEIRS, folder) as (theirs, their_start):
        begins[OURS.name].append(our_start)
        begins[THEIRS.name].append(their_start)
        both = (ours, theirs)
        for running in both:
            running.ask(tokens)
        alone = [[running.ask(tokens) for running in both] for _ in range(rounds)]
        together = [[running.ask_at_once(clients, tokens) for running in both] for _ in range(rounds)]

    def median(of: Callable[[Start], float], program: Program) -> float:
        return statistics.median(of(start) for start in begins[program.name])

    rows = [
        (label, median(of, OURS), median(of, THEIRS))
        for label, of in (
            ("start to `/health` answering, s", lambda start: start.answering),
            ("start to ready, s", lambda start: start.ready),
            ("start to first token, s", lambda start: start.first_token),
        )
    ]
    first = [statistics.median(pair[i].first * 1000 for pair in alone) for i in (0, 1)]
    rate = [statistics.median((tokens - 1) / (pair[i].last - pair[i].first) for pair in alone) for i in (0, 1)]
    many = [statistics.median(pair[i] for pair in together) for i in (0, 1)]
    return [
        *rows,
        ("time to first token, ms", first[0], first[1]),
        ("tokens/s, one client", rate[0], rate[1]),
        (f"tokens/s, {clients} clients together", many[0], many[1]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    rows = measure(options.folder.resolve(), options.rounds, options.tokens, options.clients, options.starts)
    print(f"| | {OURS.name} | {THEIRS.name} | ratio |\n|---|---|---|---|")
    for label, ours, theirs in rows:
        better = ours / theirs if "tokens/s" in label else theirs / ours
        print(f"| {label} | {ours:.4g} | {theirs:.4g} | {better:.2f} |")


if __name__ == "__main__":
    main()
