"""What people are shown of a workflow's earlier jobs. Pure."""

from __future__ import annotations

from typing import Any

from .jobs import JobFinished, JobStarted, JobText, Outcome
from .references import as_text

LONGEST_OUTPUT = 4000
"""Characters shown of an output that did not come as a stream."""


class Narration:
    """Tells of jobs one after the other: one has the floor, what others say meanwhile is kept until it is done."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = {}
        self._jobs: dict[str, str] = {}
        self._finished: set[str] = set()

    def feed(self, happening: JobStarted | JobText | JobFinished | Outcome) -> str:
        """What to show now."""
        match happening:
            case JobText(job=job, label=label, text=text) if text:
                return self._say(job, label, text)
            case JobFinished(job=job, output=output):
                if job not in self._jobs.values():
                    return self._say(job, job, _shown(output)) + self._finish(job)
                return self._finish(job)
            case _:
                return ""

    def _say(self, job: str, label: str, text: str) -> str:
        has_floor = not self._said or next(iter(self._said)) == label
        is_new = label not in self._said
        self._jobs[label] = job
        pieces = self._said.setdefault(label, [])
        text = f"{label}:\n{text}" if is_new else text
        if has_floor:
            return text
        pieces.append(text)
        return ""

    def _finish(self, job: str) -> str:
        """End what the job said, and give the floor to the next."""
        self._finished |= {label for label, whose in self._jobs.items() if whose == job}
        shown = ""
        while self._said and next(iter(self._said)) in self._finished:
            del self._said[next(iter(self._said))]
            shown += "\n\n"
            if self._said:
                pieces = next(iter(self._said.values()))
                shown += "".join(pieces)
                pieces.clear()
        return shown


def _shown(output: Any) -> str:
    text = as_text(output)
    return text if len(text) <= LONGEST_OUTPUT else text[:LONGEST_OUTPUT] + " ..."
