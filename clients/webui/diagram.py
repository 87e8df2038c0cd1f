"""The jobs of a workflow as a drawing, from left to right. Pure.

A job's column is the longest way to it from the start; what a job waits for is joined to it by a line, and lines that
another way implies are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import msgspec

from ...adapters.runs import JobCard

WIDTH, HEIGHT, ACROSS, DOWN, EDGE = 148, 54, 44, 18, 8
LONGEST = 17
"""Letters that fit into a box."""

START, END = "\0start", "\0end"


class Box(msgspec.Struct, frozen=True):
    """A job in its place; the start and the end are boxes too."""

    id: str
    title: str
    below: str
    column: int
    row: float
    after: tuple[str, ...]


def layout(jobs: Sequence[JobCard]) -> list[Box]:
    """Where everything stands; each column is centred."""
    waits: dict[str, frozenset[str]] = {START: frozenset()} | {
        job.id: frozenset(job.depends_on or (START,)) for job in jobs
    }
    waited_for = frozenset().union(*waits.values())
    waits[END] = frozenset(waits) - waited_for
    titles = {START: ("Input", ""), END: ("Output", "")} | {job.id: (job.id, job.component) for job in jobs}
    columns: dict[str, int] = {}
    for id in _in_order(waits):
        columns[id] = max((columns[each] + 1 for each in waits[id]), default=0)
    members = [[id for id in titles if columns[id] == column] for column in range(max(columns.values()) + 1)]
    tallest = max(map(len, members))
    return [
        Box(id, *titles[id], column, row + (tallest - len(ids)) / 2, _needed(id, waits))
        for column, ids in enumerate(members)
        for row, id in enumerate(ids)
    ]


def _in_order(waits: Mapping[str, frozenset[str]]) -> list[str]:
    order: dict[str, None] = {}
    while len(order) < len(waits):
        ready = [id for id in waits if id not in order and waits[id] <= order.keys()]
        order.update(dict.fromkeys(ready or waits))
    return list(order)


def _needed(id: str, waits: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """What a box is joined to: all it waits for but what these wait for themselves."""
    return tuple(sorted(each for each in waits[id] if not any(_leads(each, other, waits) for other in waits[id])))


def _leads(first: str, then: str, waits: Mapping[str, frozenset[str]]) -> bool:
    return first in waits[then] or any(_leads(first, each, waits) for each in waits[then])


def diagram(jobs: Sequence[JobCard], states: Mapping[str, str] | None = None) -> str:
    """An SVG; `states` says how far the jobs of a run are."""
    boxes = layout(jobs)
    places = {box.id: _place(box) for box in boxes}
    width = max(x for x, _ in places.values()) + WIDTH + EDGE
    height = max(y for _, y in places.values()) + HEIGHT + EDGE
    lines = "".join(_line(places[one], places[box.id]) for box in boxes for one in box.after)
    shapes = "".join(_shape(box, places[box.id], (states or {}).get(box.id, "")) for box in boxes)
    said = "; ".join(_said(job, (states or {}).get(job.id, "")) for job in jobs)
    return (
        f'<div class="diagram scrolls" tabindex="0" role="region" aria-label="Diagram of the jobs">'
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="Jobs: {escape(said)}"><defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{lines}{shapes}</svg></div>"
    )


def _place(box: Box) -> tuple[float, float]:
    return EDGE + box.column * (WIDTH + ACROSS), EDGE + box.row * (HEIGHT + DOWN)


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + WIDTH, start[1] + HEIGHT / 2
    x2, y2 = end[0] - 1, end[1] + HEIGHT / 2
    bend = max(ACROSS / 2, (x2 - x1) / 2)
    return f'<path class="line" d="M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}" marker-end="url(#arrow)"/>'  # noqa: E501


def _shape(box: Box, place: tuple[float, float], state: str) -> str:
    x, y = place
    middle = x + WIDTH / 2
    is_end = box.id in {START, END}
    below = _cut(STATES.get(state, box.below))
    title = f'<text class="title" x="{middle:.0f}" y="{y + (24 if below else 32):.0f}">{escape(_cut(box.title))}</text>'
    if below:
        title += f'<text class="below" x="{middle:.0f}" y="{y + 41:.0f}">{escape(below)}</text>'
    return (
        f'<g class="box {"end" if is_end else "job"} {escape(state)}"><title>{escape(box.title)}</title>'
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="{HEIGHT / 2 if is_end else 12:.0f}"/>'
        f"{title}</g>"
    )


STATES = {
    "pending": "waits",
    "processing": "runs",
    "completed": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


def _said(job: JobCard, state: str) -> str:
    after = f" after {' and '.join(job.depends_on)}" if job.depends_on else ""
    return f"{job.id}{after}" + (f", {STATES[state]}" if state in STATES else "")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
