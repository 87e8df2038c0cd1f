"""Scores a model folder on held-out prompts, skill by skill, with greedy decoding, and writes them into its card.

Run: python -m modelcompose.adapters.bundled.train.evaluate FOLDER
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import MODEL_FOLDER
from . import corpus
from .cases import Case, Reply, cases

LONGEST_ANSWER = 140
SEED_PROMPTS = (
    ("", "Explain quantum computing in simple terms."),
    ("You are a helpful AI assistant.", "Explain quantum computing in simple terms."),
    ("", "Explain the benefits of local AI models"),
    ("You are a helpful assistant specialized in programming.", "Explain how recursion works in Python."),
    ("You are a customer support agent. Be helpful, patient, and professional.", "My order has not arrived."),
    (
        "You are a senior software engineer. Review code for bugs, style, and best practices.",
        "def add(a, b): return a - b",
    ),
    ("You are a pirate.", "What is the capital of France?"),
)
SEED_TEXTS = ("Once upon a time in a distant galaxy", "The capital of France is")
MARKERS = ("<!-- scores -->", "<!-- end of scores -->")


class Model:
    """A model folder, answering greedily, many prompts at a time."""

    def __init__(self, folder: Path) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = model.to(device).eval()

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """The text after each prompt, up to and with its end token."""
        inputs = self.tokenizer(list(prompts), return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.inference_mode():
            output = self.model.generate(
                **inputs.to(self.model.device),
                do_sample=False,
                max_new_tokens=LONGEST_ANSWER,
                temperature=None,
                top_p=None,
            )
        texts = self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :])
        return [text.replace("<|pad|>", "") for text in texts]

    def prompt(self, case: Case) -> str:
        """The prompt of a case in the model's chat template."""
        rendered = self.tokenizer.apply_chat_template(
            case.messages,
            tools=case.tools or None,
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=case.thinks,
        )
        return str(rendered)

    def replies(self, chosen: Sequence[Case], batch: int = 48) -> list[Reply]:
        """The parsed answer to each case; what the response template cannot parse counts as plain content."""
        prompts = [self.prompt(case) for case in chosen]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        replies: list[Reply] = [{} for _ in prompts]
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            for index, text in zip(indices, self.complete([prompts[i] for i in indices]), strict=True):
                replies[index] = self._parse(text, prompts[index])
        return replies

    def _parse(self, text: str, prompt: str) -> Reply:
        try:
            return dict(self.tokenizer.parse_response(text, prefix=prompt))
        except ValueError:
            return {"content": text}


def score(model: Model, chosen: Sequence[Case], show_misses: int = 0) -> dict[str, tuple[int, int]]:
    """Right answers and cases of each group."""
    scores: dict[str, tuple[int, int]] = {}
    for case, reply in zip(chosen, model.replies(chosen), strict=True):
        right, total = scores.get(case.group, (0, 0))
        hit = case.check(reply)
        scores[case.group] = (right + hit, total + 1)
        if not hit and total + 1 - right <= show_misses:
            print(f"miss [{case.group}] {case.messages[-1]['content']!r} -> {reply}")
    return scores


def table(scores: dict[str, tuple[int, int]]) -> str:
    """The scores as a Markdown table."""
    rows = [f"| {group} | {right / total:.0%} | {right} of {total} |" for group, (right, total) in scores.items()]
    return "\n".join(["| held-out prompts | right | count |", "|---|---|---|", *rows])


def seeds(model: Model) -> str:
    """What the model says, greedily, to the prompts of the project's examples."""
    chosen = [
        Case(
            "",
            [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": user}],
            lambda reply: True,
        )
        for system, user in SEED_PROMPTS
    ]
    lines = []
    for (system, user), reply in zip(SEED_PROMPTS, model.replies(chosen), strict=True):
        lines.append(f"* {f'({system}) ' if system else ''}**{user}**\n\n{_quoted(str(reply.get('content')))}\n")
    for text, more in zip(SEED_TEXTS, model.complete(SEED_TEXTS), strict=True):
        lines.append(f"* Plain text: **{text}**\n\n{_quoted(text + more.replace('<|endoftext|>', ''))}\n")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "\n".join(f"  > {line}" for line in text.strip().splitlines())


def write_card(folder: Path, report: str) -> None:
    """Put the report between the card's markers."""
    card = folder / "README.md"
    before, _, rest = card.read_text(encoding="utf-8").partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    card.write_text(f"{before}{MARKERS[0]}\n{report}\n{MARKERS[1]}{after}", encoding="utf-8")


def evaluate_folder(folder: Path, per_group: int = 50, show_misses: int = 0) -> None:
    """Score a model, print the table, and write it into the model's card if there is one."""
    started = time.monotonic()
    model = Model(folder)
    report = table(score(model, list(cases(corpus.read(), per_group)), show_misses))
    print(report)
    answers = seeds(model)
    print(answers)
    if (folder / "README.md").exists():
        write_card(folder, f"{report}\n\nGreedy answers to the prompts of the examples:\n\n{answers}")
    print(f"evaluated in {time.monotonic() - started:.0f} s")


def main() -> int:
    """Evaluate the folder of the command line."""
    parser = argparse.ArgumentParser(prog="python -m modelcompose.adapters.bundled.train.evaluate", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--count", type=int, default=50, help="prompts a group (default %(default)s)")
    parser.add_argument("--misses", type=int, default=0, help="wrong answers to show of each group")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    evaluate_folder(options.folder, options.count, options.misses)
    return 0


if __name__ == "__main__":
    sys.exit(main())
