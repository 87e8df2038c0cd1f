"""Several compose files become one, later over earlier, as docker compose merges them.

Mappings are merged key by key, scalars replaced. Lists of things with ids (components, actions, workflows, jobs) are
merged by id, as docker compose merges its ports and volumes by theirs; a thing without an id is the one without, or the
only one. Any other list is replaced, as docker compose does with commands: of such lists (commands, messages, stop
sequences, keys) half would make no sense. docker compose appends to its other lists; ours has none of that kind.
`!reset` takes a key away and `!override` puts a value in place of what was there, instead of merging into it.
All paths in all files are relative to the first file.
"""

from __future__ import annotations

from .tree import Node

WITH_IDS = ("components", "actions", "workflows", "jobs")


def merge(base: Node, over: Node, key: str = "") -> Node:
    """`base` with what `over` says about it; `key` is the name both have."""
    if over.tag == "override":
        return over
    match base.value, over.value:
        case dict(), dict():
            return over.with_value(_merge_fields(base.value, over.value))
        case list(), list() if key in WITH_IDS:
            return base.with_value(_merge_by_id(base.value, over.value))
        case _:
            return over


def without_resets(node: Node) -> Node:
    """The tree without the keys that are tagged `!reset`; for a file that is not merged into another."""
    match node.value:
        case dict():
            return node.with_value(
                {key: without_resets(child) for key, child in node.value.items() if child.tag != "reset"}
            )
        case list():
            return node.with_value([without_resets(child) for child in node.value if child.tag != "reset"])
        case _:
            return node


def _merge_fields(base: dict[str, Node], over: dict[str, Node]) -> dict[str, Node]:
    merged = {key: merge(base[key], child, key) if key in base else child for key, child in over.items()}
    return {key: merged.get(key, child) for key, child in {**base, **over}.items()}


def _merge_by_id(base: list[Node], over: list[Node]) -> list[Node]:
    merged = list(base)
    for item in over:
        same = [number for number, each in enumerate(base) if _id(each) == _id(item)]
        if not same and _id(item) is None and len(base) == len(over) == 1:
            same = [0]
        if same:
            merged[same[0]] = merge(merged[same[0]], item)
        else:
            merged.append(item)
    return merged


def _id(node: Node) -> object:
    id = node.fields.get("id")
    return id.value if id else None
