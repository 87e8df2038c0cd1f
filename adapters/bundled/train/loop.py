"""The training run: batches made ahead in a thread, steps, checkpoints, and a log of every skill."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from transformers import LlamaConfig

from . import data
from .batches import Batch, Encoded, Encoder, make_batch, pack
from .network import Network
from .optimizer import Optimizer, rate
from .render import ANSWER_WEIGHT
from .start import begin_with

LATE_SHARE = 0.6  # of the run, after which long texts come
LONGEST_STEP = 5.0  # seconds; a step that took longer was kept waiting by others


@dataclass(frozen=True)
class Plan:
    """How long and how large a run is; it ends after `minutes`, or after `steps` where that is given.

    It begins with the model in the folder `begin_with`, or from nothing, and with `first_rate` of the full rates; what
    a checkpoint has begun goes on as it was.
    """

    work: Path
    minutes: float = 75.0
    steps: int | None = None
    batch_tokens: int = 8192
    seed: int = 1
    checkpoint_minutes: float = 3.0
    score_minutes: float = 5.0
    probes: int = 16
    use_compiler: bool = True
    begin_with: Path | None = None
    first_rate: float = 1.0


class Run:
    """One training run; its state lives in `checkpoint.pt` of the work folder."""

    def __init__(self, plan: Plan, config: LlamaConfig, sources: data.Sources, encoder: Encoder) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.sources, self.encoder = plan, sources, encoder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = Network(config, encoder.pairs())
        self.has_begun_with_a_model = plan.begin_with is not None
        self.first_rate = plan.first_rate
        if plan.begin_with is not None and not self.checkpoint.exists():
            begin_with(network, encoder.tokenizer, plan.begin_with)
        self.network = network.to(self.device, torch.bfloat16)
        self.optimizer = Optimizer(self.network)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.loss = torch.compile(self.network.loss, dynamic=False) if plan.use_compiler else self.network.loss
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept."""
        return self.plan.work / "checkpoint.pt"

    @property
    def done(self) -> float:
        """The share of the run that is over, by steps where they are given, else by time."""
        if self.plan.steps is not None:
            return self.step / self.plan.steps
        return self.seconds / (60 * self.plan.minutes)

    @property
    def rate(self) -> float:
        """The share of the full learning rates for the next step."""
        return self.first_rate * rate(self.step, self.done)

    def train(self) -> None:
        """Run to the end of the plan, from wherever the checkpoint left off."""
        saved = last = time.monotonic()
        scored = self.seconds
        for batch in self._batches():
            if self.done >= 1:
                break
            value = self._train_step(batch)
            last, before = time.monotonic(), last
            self.seconds += min(last - before, LONGEST_STEP)
            if self.step % 25 == 0:
                self._log({"loss": round(value, 4), "rate": round(self.rate, 4)})
            if time.monotonic() - saved > 60 * self.plan.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
            if self.seconds - scored > 60 * self.plan.score_minutes:
                self._log(self.skill_scores())
                scored = self.seconds
        self.save()
        self._log(self.skill_scores())

    def save(self) -> None:
        """Write the checkpoint so that a kill at any moment leaves a whole one."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "optimizer": self.optimizer.state(),
            "first_rate": self.first_rate,
            "has_begun_with_a_model": self.has_begun_with_a_model,
        }
        temporary = self.checkpoint.with_suffix(".new")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device)
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        self.first_rate, self.has_begun_with_a_model = state["first_rate"], state["has_begun_with_a_model"]
        self.optimizer.load(state["optimizer"])

    def _batches(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as pool:
            step = self.step
            coming = pool.submit(self._make, step)
            while True:
                batch, step = coming.result(), step + 1
                coming = pool.submit(self._make, step)
                yield batch

    def _make(self, step: int) -> Batch:
        late = self.done > LATE_SHARE
        return make_batch(f"{self.plan.seed}-{step}", self.sources, self.encoder, self.plan.batch_tokens, late)

    def _train_step(self, batch: Batch) -> float:
        place = self.device
        loss = self.loss(batch.tokens.to(place), batch.weights.to(place), batch.examples.to(place))
        loss.backward()
        self.optimizer.step(self.rate)
        self.step += 1
        self.tokens += int((batch.examples >= 0).sum())
        return float(loss.detach())

    def summary(self) -> dict[str, str]:
        """How much was trained, and on what, in words for the card."""
        device = "a GPU" if self.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        tokens = f"{self.tokens / 1e6:.1f}"
        begun = " It began with the weights of an earlier version of itself." if self.has_begun_with_a_model else ""
        minutes = f"{self.seconds / 60:.0f}"
        return {"tokens": tokens, "steps": str(self.step), "minutes": minutes, "device": device, "begun": begun}

    @torch.no_grad()
    def skill_scores(self) -> dict[str, float]:
        """Share of unseen examples whose last answer comes out letter for letter under greedy decoding, by skill."""
        scores: dict[str, list[bool]] = {}
        probes = sorted(self._probes(), key=lambda item: len(item.tokens))
        for start in range(0, len(probes), 16):
            group = probes[start : start + 16]
            batch = pack(group, len(group), len(group[-1].tokens), self.encoder.padding)
            _, right = self.network.losses(batch.tokens.to(self.device), batch.examples.to(self.device))
            for number, item in enumerate(group):
                row, first = (batch.examples == number).nonzero()[0].tolist()
                answer = _last_answer(item)
                hit = right[row, first + answer.start - 1 : first + answer.stop - 1].all()
                scores.setdefault(item.skill, []).append(bool(hit))
        return {skill: round(sum(hits) / len(hits), 3) for skill, hits in sorted(scores.items())}

    def _probes(self) -> list[Encoded]:
        random = Random("probes")
        probes = []
        for _, maker in data.MIXTURE:
            for _ in range(self.plan.probes):
                item = self.encoder.encode(data.with_thinking(random, maker(random, self.sources), 0.0))
                if item.skill != "document" and len(item.tokens) < 512:
                    probes.append(item)
        return probes

    def _log(self, values: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), "tokens": self.tokens} | values
        print(json.dumps(line), flush=True)
        with (self.plan.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def _last_answer(item: Encoded) -> slice:
    """Where the tokens of an example's last answer stand."""
    end = max(index for index, weight in enumerate(item.weights) if weight == ANSWER_WEIGHT) + 1
    start = max(index for index, weight in enumerate(item.weights[:end]) if weight < ANSWER_WEIGHT) + 1
    return slice(start, end)
