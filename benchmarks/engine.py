"""This server beside `transformers serve`, vLLM for CPUs and llama.cpp's server: tokens a second and time to the first.

    python benchmarks/engine.py [--models 16M,350M,1B] [--streams 1,4,16,64] [--prompts 32,512,2000]
        [--against transformers,transformers-batching,vllm,llama] [--parts ...] [--repeat 3] [--json FILE]

All serve the same random weights in bfloat16, one after the other, `--repeat` times in turn, and are asked by the same
client for exactly 128 tokens an answer; what is shown are medians. `--vllm` is an environment with vLLM for CPUs,
`--llama` the command of llama.cpp's server; `transformers serve` is the one beside this Python unless `--transformers`
names another. What is not there is left out.

A point that is not done after `--seconds` counts with the tokens it has made by then (marked ~); it is not repeated,
and more streams of such prompts are not tried. With `--json` results are kept in a file, which later runs add to and
show with their own. Parts: `streams` (every number of streams, every length of prompt), `sampling`, `prefix` (1,500
tokens that a request shares with an earlier one), `burst` (256 requests at once); and of this server alone `http` (the
rate beside that of the engine without a server), `stall` (how long a prompt of 2,000 tokens stops 16 streams), `memory`
(before and after 1,000 mixed requests).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil
from programs import NAMES, SLOTS, Program, Running, found, started
from random_models import SHAPES, made, text
from streams import Answer, Ask, Plan, rate, run

TOKENS = 128
PREFIX = 1500
BURST = 256
OURS = "ours"


@dataclass(frozen=True)
class Options:
    streams: tuple[int, ...]
    prompts: tuple[int, ...]
    repeat: int
    seconds: float
    skip: frozenset[str] = frozenset()
    """What went wrong the last time."""


@dataclass
class Result:
    """What was measured, once or again and again: tokens a second, and seconds to the first; `note` is for people."""

    what: str
    rates: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    note: str = ""
    model: str = ""
    program: str = ""

    @property
    def rate(self) -> float | None:
        return statistics.median(self.rates) if self.rates else None

    @property
    def first(self) -> float | None:
        return statistics.median(self.firsts) if self.firsts else None

    def add(self, other: Result) -> None:
        """Take in what was measured again."""
        self.rates += other.rates
        self.firsts += other.firsts
        self.note = other.note

    @property
    def key(self) -> tuple[str, str, str]:
        return self.model, self.program, self.what


Measure = Callable[[Running, Options], Iterator[Result]]


class Prompts:
    """Texts that no server has seen before."""

    def __init__(self) -> None:
        self._seed = random.SystemRandom().randrange(1 << 40)

    def __call__(self, tokens: int) -> str:
        self._seed += 1
        return text(tokens, self._seed)


fresh = Prompts()


# What every program is asked ------------------------------------------------------------------------------------------


def measure_streams(running: Running, options: Options) -> Iterator[Result]:
    """Every number of streams with every length of prompt."""
    for length in options.prompts:
        yield from _growing(running, options, length, f"prompt {length:,}", samples=False)


def measure_sampling(running: Running, options: Options) -> Iterator[Result]:
    """The same with tokens that are drawn by chance, with short prompts."""
    yield from _growing(running, options, 32, "sampling", samples=True)


def _growing(running: Running, options: Options, length: int, what: str, *, samples: bool) -> Iterator[Result]:
    for streams in options.streams:
        if (name := f"{what}, {streams} streams") in options.skip:
            return
        yield (result := _point(running, options, name, length, streams, samples=samples))
        if result.note and streams != options.streams[-1]:
            print(f"  more streams of this prompt are not tried with {running.program.name}", flush=True)
            return


def _point(running: Running, options: Options, what: str, length: int, streams: int, *, samples: bool) -> Result:
    bodies = [running.body(fresh(length), TOKENS, samples=samples, seed=seed) for seed in range(streams)]
    answers = run(Plan(running.port, [Ask(body) for body in bodies], seconds=options.seconds))
    firsts = [each.first - each.sent for each in answers if each.first is not None]
    if not firsts or any(each.error and each.status not in (None, 200) for each in answers):
        return Result(what, note=_why(answers))
    note = ""
    if any(each.tokens is None for each in answers):
        note = f"~ not done in {options.seconds:.0f} s"
    elif wrong := {each.tokens for each in answers} - {TOKENS}:
        note = f"made {sorted(map(str, wrong))} tokens"
    came = [each for each in answers if each.first is not None]
    return Result(what, [rate(came)], [statistics.median(firsts)], note)


def _why(answers: Sequence[Answer]) -> str:
    failed = next((each for each in answers if each.error), None)
    return "nothing came in time" if failed is None else f"{failed.status}: {failed.error}"[:200]


def measure_prefix(running: Running, options: Options) -> Iterator[Result]:
    """The time to the first token with and without 1,500 tokens that an earlier request had."""
    prefix = fresh(PREFIX)
    for what in ("prefix, cold", "prefix, warm"):
        [answer] = run(Plan(running.port, [Ask(running.body(prefix + fresh(100), 8))], seconds=options.seconds))
        if answer.first is None:
            yield Result(what, note=_why([answer]))
            return
        yield Result(what, firsts=[answer.first - answer.sent])


def measure_burst(running: Running, options: Options) -> Iterator[Result]:
    """256 requests at once."""
    bodies = [running.body(fresh(32), TOKENS // 2) for _ in range(BURST)]
    answers = run(Plan(running.port, [Ask(body) for body in bodies], seconds=options.seconds))
    whole = sum(each.tokens == TOKENS // 2 for each in answers)
    refused = sum(each.status == 429 for each in answers)
    note = "" if whole == BURST else f"~ {whole} whole, {refused} refused, {BURST - whole - refused} not done"
    came = [each for each in answers if each.first is not None]
    firsts = [each.first - each.sent for each in came if each.first is not None]
    if came:
        yield Result(f"{BURST} at once", [rate(came)], [statistics.median(firsts)], note)
    else:
        yield Result(f"{BURST} at once", note=_why(answers))


# What only this server is asked ---------------------------------------------------------------------------------------


def measure_stall(running: Running, options: Options) -> Iterator[Result]:
    """How long 16 streams stand still when a prompt of 2,000 tokens comes, beside their usual step."""
    stalls, steps = [], []
    for _ in range(options.repeat):
        asks = [Ask(running.body(fresh(32), 400)) for _ in range(16)]
        asks.append(Ask(running.body(fresh(2000), 8), after=60))
        *old, new = run(Plan(running.port, asks, seconds=options.seconds, has_times=True))
        if new.first is None:
            yield Result("stall", note=_why([new]))
            return
        end = new.first + 0.2
        gaps = [(before, now) for each in old for before, now in zip(each.times, each.times[1:], strict=False)]
        steps.append(statistics.median(now - before for before, now in gaps if now < new.sent and now > before))
        stalls.append(max(now - before for before, now in gaps if now > new.sent and before < end))
    step, stall = statistics.median(steps), statistics.median(stalls)
    allowed = max(4 * step, 0.25)
    note = f"longest stop {stall * 1000:.0f} ms, usual step {step * 1000:.1f} ms, allowed {allowed * 1000:.0f} ms"
    yield Result("stall", note=note)


def measure_memory(running: Running, options: Options) -> Iterator[Result]:
    """The memory of the server and its engine before and after 1,000 mixed requests, and after 1,000 more."""
    _mixed(running, 200, seed=1)
    sizes, lost = [_memory(running.pid)], 0
    for seed in (2, 3):
        lost += sum(each.status != 200 for each in _mixed(running, 1000, seed))
        time.sleep(2)
        sizes.append(_memory(running.pid))
    weights = sum(file.stat().st_size for file in running.folder.glob("*.safetensors"))
    shown = ", ".join(f"{size / 1e6:,.0f}" for size in (*sizes, weights))
    note = f"MB before, after 1,000 requests, after 2,000, and of the weights: {shown}; {lost} requests lost"
    yield Result("memory", note=note)


def _mixed(running: Running, count: int, seed: int) -> list[Answer]:
    """Requests of all lengths, some of them sampled, some left by their clients, 32 at a time."""
    chance = random.Random(seed)
    asks = []
    for index in range(count):
        body = running.body(
            fresh(chance.randint(1, 600)), chance.randint(1, 64), samples=chance.random() < 0.5, seed=index
        )
        asks.append(Ask(body, leaves=chance.randint(1, 5) if chance.random() < 0.2 else None))
    return run(Plan(running.port, asks, seconds=200, at_once=32))


def _memory(pid: int) -> int:
    parent = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (parent, *parent.children(recursive=True)))


async def _alone(folder: Path, streams: int, tokens: int) -> float:
    """Tokens a second of an engine process whose messages are only counted."""
    from modelcompose.adapters.base import GenerationRequest, ModelState, Sampling
    from modelcompose.adapters.events import Usage
    from modelcompose.adapters.transformers.child import engine_process
    from modelcompose.adapters.transformers.messages import Failure, FromEngine, State, Step, Submit
    from modelcompose.adapters.transformers.settings import ModelSettings

    ready: asyncio.Queue[ModelState] = asyncio.Queue()
    ended: asyncio.Queue[int] = asyncio.Queue()

    def receive(message: FromEngine) -> None:
        match message:
            case State(state) if state.phase != "loading":
                ready.put_nowait(state)
            case Step(outcomes):
                for _, outcome in outcomes:
                    if isinstance(outcome, Usage | Failure):
                        ended.put_nowait(outcome.completion_tokens if isinstance(outcome, Usage) else 0)

    async with engine_process(
        ModelSettings(name="m", source=str(folder), max_concurrent_count=SLOTS), receive
    ) as engine:
        assert (await ready.get()).phase == "ready"
        rates = []
        for _ in range(2):
            sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
            began = time.perf_counter()
            for index in range(streams):
                message = {"role": "user", "content": fresh(32)}
                engine.send(Submit(index, GenerationRequest(model="m", messages=(message,), sampling=sampling)))
            made = sum([await ended.get() for _ in range(streams)])
            rates.append(made / (time.perf_counter() - began))
    return rates[-1]


def measure_http(model: str, folder: Path, program: Program, options: Options) -> Iterator[Result]:
    """The rate of this server beside that of its engine without a server, 256 tokens a stream."""
    for streams in (1, 64):
        alone, through = [], []
        for _ in range(options.repeat):
            alone.append(asyncio.run(_alone(folder, streams, 2 * TOKENS)))
            with started(program, folder) as running:
                for _ in range(2):
                    asks = [Ask(running.body(fresh(32), 2 * TOKENS)) for _ in range(streams)]
                    last = rate(run(Plan(running.port, asks, seconds=options.seconds)))
            through.append(last)
        a, b = statistics.median(alone), statistics.median(through)
        note = f"{b:,.0f} tokens/s through HTTP, {a:,.0f} of the engine alone: {b / a:.0%}"
        yield Result(f"HTTP, {streams} streams", note=note, model=model, program=OURS)


PARTS: dict[str, Measure] = {
    "streams": measure_streams,
    "sampling": measure_sampling,
    "prefix": measure_prefix,
    "burst": measure_burst,
}
OWN_PARTS: dict[str, Measure] = {"stall": measure_stall, "memory": measure_memory}
HTTP = "http"


# What is printed ------------------------------------------------------------------------------------------------------


def tables(results: Sequence[Result], programs: Sequence[str]) -> Iterator[str]:
    """Markdown tables: for each model the rates and the times to the first token, with this server's ratio to each."""
    for model in dict.fromkeys(result.model for result in results):
        by_key = {result.key: result for result in results if result.model == model}
        rows = list(dict.fromkeys(what for _, _, what in by_key))
        yield from _table(f"{model}, tokens a second", "rate", model, rows, by_key, programs)
        yield from _table(f"{model}, ms to the first token", "first", model, rows, by_key, programs)
        notes = [result for result in by_key.values() if result.note]
        yield from (f"* {each.what}, {each.program}: {each.note}" for each in notes)


def _table(
    title: str,
    figure: str,
    model: str,
    rows: Sequence[str],
    by_key: dict[tuple[str, str, str], Result],
    programs: Sequence[str],
) -> Iterator[str]:
    there = [name for name in programs if any((model, name, row) in by_key for row in rows)]
    others = [name for name in there if name != OURS]
    yield f"\n{title}\n"
    yield "| | " + " | ".join([*there, *(f"ours / {name}" for name in others if OURS in there)]) + " |"
    yield "|---" * (1 + len(there) + (len(others) if OURS in there else 0)) + "|"
    for row in rows:
        found = {name: by_key[model, name, row] for name in there if (model, name, row) in by_key}
        figures = {name: getattr(each, figure) for name, each in found.items() if getattr(each, figure) is not None}
        if not figures:
            continue
        marks = {name: "~" if found[name].note.startswith("~") else "" for name in figures}
        cells = [_figure(figures.get(name), figure, marks.get(name, "")) for name in there]
        if OURS in there:
            cells += [_ratio(figures.get(OURS), figures.get(name)) for name in others]
        yield f"| {row} | " + " | ".join(cells) + " |"


def _figure(value: float | None, figure: str, mark: str) -> str:
    if value is None:
        return ""
    return mark + (f"{value:,.0f}" if figure == "rate" else f"{value * 1000:,.0f}")


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "" if not ours or not theirs else f"{ours / theirs:.2f}"


# The run --------------------------------------------------------------------------------------------------------------


def measured(
    model: str, folder: Path, name: str, program: Program, parts: Sequence[str], options: Options
) -> Iterator[Result]:
    """Everything about one program with one model."""
    own = OWN_PARTS if name == OURS else {}
    chosen = [part for each, part in {**PARTS, **own}.items() if each in parts]
    if chosen:
        with started(program, folder) as running:
            _warm_up(running, options)
            for part in chosen:
                for result in part(running, options):
                    result.model, result.program = model, name
                    yield result
    if HTTP in parts and name == OURS:
        yield from measure_http(model, folder, program, options)


def _warm_up(running: Running, options: Options) -> None:
    for length, streams in ((32, 1), (32, max(options.streams)), (max(options.prompts), 1)):
        run(Plan(running.port, [Ask(running.body(fresh(length), 8)) for _ in range(streams)], seconds=options.seconds))


def main() -> None:
    args = _arguments()
    programs = found(transformers=args.transformers, vllm=args.vllm, llama=args.llama)
    wanted = [*([] if args.without_ours else [OURS]), *args.against.split(",")]
    absent = [name for name in wanted if name and name not in programs]
    if absent:
        print(f"not here, and left out: {', '.join(absent)}")
    options = Options(_numbers(args.streams), _numbers(args.prompts), args.repeat, args.seconds)
    results = {}
    if args.json is not None and args.json.exists():
        results = {each.key: each for each in (Result(**fields) for fields in json.loads(args.json.read_text()))}
    parts = args.parts.split(",")
    for model in args.models.split(",") if args.models else ():
        folder = made(model, args.cache)
        new: dict[tuple[str, str, str], Result] = {}
        for number in range(options.repeat):
            if number:  # once is enough for what measures again and again by itself
                parts = [part for part in parts if part in PARTS]
            for name in (name for name in wanted if name in programs):
                skip = frozenset(each.what for each in new.values() if each.program == name and each.note)
                asked = replace(options, skip=skip)
                for result in measured(model, folder, name, programs[name], parts, asked):
                    print(f"{model} {name}: {_line(result)}", flush=True)
                    if result.key in new:
                        new[result.key].add(result)
                    else:
                        new[result.key] = results[result.key] = result
                    if args.json is not None:
                        args.json.write_text(json.dumps([asdict(each) for each in results.values()], indent=1))
    print("\n".join(tables(list(results.values()), NAMES)))


def _line(result: Result) -> str:
    rate = "" if result.rate is None else f"{result.rate:,.0f} tokens/s"
    first = "" if result.first is None else f"{result.first * 1000:,.0f} ms to the first"
    return f"{result.what}: " + ", ".join(each for each in (rate, first, result.note) if each)


def _numbers(given: str) -> tuple[int, ...]:
    return tuple(int(each) for each in given.split(",") if each)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SHAPES), help="empty: only show the results of --json")
    parser.add_argument("--streams", default="1,4,16,64")
    parser.add_argument("--prompts", default="32,512,2000")
    parser.add_argument("--against", default=",".join(NAMES[1:]))
    parser.add_argument("--without-ours", action="store_true")
    parser.add_argument("--parts", default=",".join([*PARTS, *OWN_PARTS, HTTP]))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="the longest that one point may take")
    parser.add_argument("--json", type=Path, help="a file that keeps the results")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/model-compose/random-models")
    parser.add_argument("--transformers", type=Path, default=Path(sys.executable).with_name("transformers"))
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm"), help="an environment")
    parser.add_argument("--llama", type=Path, default=Path(".venv-llama/bin/llama-server"), help="the command")
    return parser.parse_args()


if __name__ == "__main__":
    main()
