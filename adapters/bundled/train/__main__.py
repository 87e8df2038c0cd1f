"""Makes the bundled model: data, tokenizer, training, export, evaluation. Run it again to go on after a stop."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from random import Random

from tokenizers import Tokenizer
from transformers import LlamaConfig

from .. import MODEL_FOLDER
from . import corpus, data
from .export import configuration, export, write_card
from .network import to_transformers
from .render import render, unspelled
from .tokenizer import SPACE, build

VOCABULARY_SIZE = 8960
SPELLED_WORDS = 700  # the most frequent ones, which text tasks draw from; drills are of all words
TOKENIZER_EXAMPLES = 12000
# Keeping freed memory saves a third of a step's time; threads that sleep while they wait do better on a shared machine.
ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "OMP_WAIT_POLICY": "PASSIVE"}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m modelcompose.adapters.bundled.train", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/bundled"), help="checkpoints and logs (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=MODEL_FOLDER, help="where the model is written (default %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=75.0, help="length of the training (default %(default)s)")
    parser.add_argument(
        "--begin-with", type=Path, metavar="FOLDER", help="begin with the weights of a model made before"
    )
    parser.add_argument(
        "--first-rate", type=float, default=1.0, help="share of the full learning rates to begin with (default 1)"
    )
    parser.add_argument("--steps", type=int, help="train for so many steps instead, whatever time that takes")
    parser.add_argument("--batch-tokens", type=int, help="tokens a step (default 8192, on a GPU 65536)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    parser.add_argument(
        "--no-compile", action="store_true", help="do without torch.compile, which needs a C++ compiler"
    )
    parser.add_argument("--export-only", action="store_true", help="write the model of the last checkpoint and stop")
    parser.add_argument("--no-evaluation", action="store_true", help="stop after the export")
    return parser.parse_args()


def load_tokenizer(work: Path, sources: data.Sources, seed: int) -> Tokenizer:
    """The tokenizer of the work folder, built on the first run."""
    path = work / "tokenizer.json"
    if not path.exists():
        random = Random(f"tokenizer-{seed}")
        texts = [text for block in sources.corpus.blocks for q in block.questions for text in corpus.expand(q)[:8]]
        texts += [answer.text for block in sources.corpus.blocks for answer in block.answers for _ in range(3)]
        texts += [document for document in sources.corpus.documents for _ in range(3)]
        texts += [words for words in sources.corpus.word_lists for _ in range(3)]
        texts += [s for block in sources.corpus.blocks for system in block.systems for s in corpus.expand(system)]
        texts += [unspelled(text) for _ in range(TOKENIZER_EXAMPLES) for text, _ in render(data.make(random, sources))]
        build(texts, VOCABULARY_SIZE).save(str(path))
    return Tokenizer.from_file(str(path))


def whole_words(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The vocabulary's words in small letters, the most frequent first."""
    by_frequency = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    found = dict.fromkeys(word.removeprefix(SPACE).lower() for word, _ in by_frequency)
    return tuple(word for word in found if word.isascii() and word.isalpha() and 2 <= len(word) <= 10)


def main() -> int:
    """Train, export and evaluate as the command line says."""
    chosen = options()
    if not ENVIRONMENT.items() <= os.environ.items():
        os.execve(
            sys.executable, [sys.executable, "-m", __package__ or "", *sys.argv[1:]], {**os.environ, **ENVIRONMENT}
        )
    import torch

    from .batches import Encoder
    from .loop import Plan, Run

    torch.set_num_threads(chosen.threads)
    chosen.work.mkdir(parents=True, exist_ok=True)
    texts = corpus.read()
    tokenizer = load_tokenizer(chosen.work, data.Sources(texts), chosen.seed)
    words = whole_words(tokenizer)
    sources = data.Sources(texts, words[:SPELLED_WORDS], words)
    config: LlamaConfig = configuration(tokenizer)
    size = chosen.batch_tokens or (65536 if torch.cuda.is_available() else 8192)
    plan = Plan(
        chosen.work,
        chosen.minutes,
        chosen.steps,
        size,
        chosen.seed,
        use_compiler=not chosen.no_compile,
        begin_with=chosen.begin_with,
        first_rate=chosen.first_rate,
    )
    run = Run(plan, config, sources, Encoder(tokenizer))
    if not chosen.export_only:
        run.train()
    weights = to_transformers(run.network)
    export(weights, config, tokenizer, chosen.out)
    write_card(config, weights, run.summary(), chosen.out)
    print(f"wrote {chosen.out}")
    if not (chosen.export_only or chosen.no_evaluation):
        from .evaluate import evaluate_folder

        evaluate_folder(chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
