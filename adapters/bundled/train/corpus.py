"""The knowledge texts in `text/*.txt`: question blocks and plain documents, and their parser.

Blocks are separated by blank lines. A question block has `Q:` lines (paraphrases, `{a|b}` expands to
alternatives), `H:` lines (paraphrases held out for evaluation), `A:` lines (alternative answers, `A[tone]:` for
a tone that a system prompt asks for), and may begin with `S:` lines (a system prompt for the block). A line
without a prefix continues the line before it; a written `\\n` is a line break. A block that starts with the line
`DOC` is a plain document. `words.txt` holds lists of words for the vocabulary, which are not trained on as texts.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random

TEXT_FOLDER = Path(__file__).parent / "text"
WORD_LISTS = "words.txt"

_LINE = re.compile(r"(?P<kind>[SQHA])(?:\[(?P<tone>[a-z-]+)\])?:(?: |$)(?P<text>.*)")
_ALTERNATIVES = re.compile(r"\{([^{}]*\|[^{}]*)\}")


class CorpusError(ValueError):
    """A block that does not follow the format, with its file and line."""


@dataclass(frozen=True)
class Answer:
    """One answer; `tone` is empty for the neutral voice."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Block:
    """Paraphrases of one question with their answers; `topic` is the name of the file they stand in."""

    questions: tuple[str, ...]
    answers: tuple[Answer, ...]
    held_out: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    topic: str = ""

    @property
    def neutral(self) -> tuple[str, ...]:
        """The answers in the neutral voice, or all of them where none is neutral."""
        return tuple(a.text for a in self.answers if not a.tone) or tuple(a.text for a in self.answers)


@dataclass(frozen=True)
class Corpus:
    """All question blocks and plain documents of a folder, and its lists of words."""

    blocks: tuple[Block, ...]
    documents: tuple[str, ...]
    word_lists: tuple[str, ...] = ()


def expand(pattern: str) -> list[str]:
    """All texts that a pattern with `{a|b}` alternatives stands for."""
    parts = _ALTERNATIVES.split(pattern)
    choices = [part.split("|") if odd else [part] for odd, part in _alternating(parts)]
    return [" ".join("".join(choice).split(" ")).strip() for choice in product(*choices)]


def pick(pattern: str, random: Random) -> str:
    """One of the texts that a pattern stands for, drawn evenly."""
    text = _ALTERNATIVES.sub(lambda match: random.choice(match[1].split("|")), pattern)
    return re.sub(r"  +", " ", text).strip()


def read(folder: Path = TEXT_FOLDER) -> Corpus:
    """Parse every text file of a folder, in the order of their names."""
    blocks: list[Block] = []
    documents: list[str] = []
    word_lists: list[str] = []
    for path in sorted(folder.glob("*.txt")):
        for line, block in _split(path.read_text(encoding="utf-8")):
            try:
                parsed = parse_block(block)
            except CorpusError as error:
                raise CorpusError(f"{path.name}:{line}: {error}") from None
            if isinstance(parsed, Block):
                blocks.append(replace(parsed, topic=path.stem))
            else:
                (word_lists if path.name == WORD_LISTS else documents).append(parsed)
    return Corpus(tuple(blocks), tuple(documents), tuple(word_lists))


def parse_block(text: str) -> Block | str:
    """Parse one block; a plain document comes back as its text."""
    first, _, rest = text.partition("\n")
    if first.strip() == "DOC":
        if not rest.strip():
            raise CorpusError("a DOC block without text")
        return _unescape(rest.strip())
    items: list[tuple[str, str, str]] = []
    for line in text.split("\n"):
        if match := _LINE.fullmatch(line):
            items.append((match["kind"], match["tone"] or "", match["text"].strip()))
        elif items:
            kind, tone, before = items[-1]
            items[-1] = (kind, tone, f"{before}\n{line.rstrip()}")
        else:
            raise CorpusError(f"expected 'Q: ', 'H: ', 'A: ', 'S: ' or 'DOC', found {line[:40]!r}")
    return _block(items)


def _block(items: list[tuple[str, str, str]]) -> Block:
    if any(not text for _, _, text in items):
        raise CorpusError("an empty line after its prefix")
    if any(tone and kind != "A" for kind, tone, _ in items):
        raise CorpusError("only an answer can carry a [tone]")
    texts = {kind: tuple(_unescape(t) for k, _, t in items if k == kind) for kind in "SQH"}
    answers = tuple(Answer(_unescape(text), tone) for kind, tone, text in items if kind == "A")
    if not texts["Q"]:
        raise CorpusError("a block without a 'Q: ' line")
    if not answers:
        raise CorpusError("a block without an 'A: ' line")
    for question in (*texts["S"], *texts["Q"], *texts["H"]):
        if "{" in _ALTERNATIVES.sub("", question) and "|" in _ALTERNATIVES.sub("", question):
            raise CorpusError(f"unbalanced or nested alternatives in {question!r}")
    return Block(texts["Q"], answers, texts["H"], texts["S"])


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n")


def _split(text: str) -> list[tuple[int, str]]:
    """The blocks of a file, each with the number of its first line."""
    blocks: list[tuple[int, str]] = []
    lines: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            blocks.append((number - len(lines), "\n".join(lines)))
            lines = []
    return blocks


def _alternating(parts: list[str]) -> list[tuple[bool, str]]:
    return [(index % 2 == 1, part) for index, part in enumerate(parts)]


def check(folder: Path = TEXT_FOLDER) -> str:
    """A summary of a folder's texts.

    Raises:
        CorpusError: a block does not follow the format, or a held-out paraphrase is trained on too.
    """
    corpus = read(folder)
    trained = {text.casefold() for block in corpus.blocks for q in block.questions for text in expand(q)}
    held_out = [text for block in corpus.blocks for h in block.held_out for text in expand(h)]
    leaked = [text for text in held_out if text.casefold() in trained]
    if leaked:
        raise CorpusError(f"held-out paraphrases that are also trained on: {leaked[:5]}")
    words = sum(len(a.text.split()) for b in corpus.blocks for a in b.answers)
    words += sum(len(document.split()) for document in corpus.documents)
    tones = Counter(a.tone or "neutral" for b in corpus.blocks for a in b.answers)
    return (
        f"{len(corpus.blocks)} question blocks, {len(trained)} questions, {len(held_out)} held out, "
        f"{len(corpus.documents)} documents, {words} words; answers by tone: {dict(tones.most_common())}"
    )


def main() -> int:
    """Check the texts and print a summary."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=TEXT_FOLDER)
    parser.add_argument("--check", action="store_true", help="check the format (what the program does anyway)")
    options = parser.parse_args()
    try:
        print(check(options.folder))
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
