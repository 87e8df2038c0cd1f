"""Rendering `output:` around a value that may still be coming.

A stream goes through an output tree untouched where one whole template hands it on (`${output}`, `${output as text}`,
`generated: ${output}`) and nothing else looks at it. `response[]`, `result[]` and `item` make a stream of what each
item renders to. Everything else needs the whole value, which is then waited for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from .components.streams import ItemStream, ModelStream, Stream, put_for, stream_in, streams_in
from .references import Cast, Each, Reference, StreamItem, Template, references_in, render_deep, resolve

Scope = Mapping[str, Any]

ITEM = "item"
_EACH_ROOTS = ("response", "result")
_HANDED_ON = (None, "text", "string", "stream/text", "stream/json")


async def render_output(tree: Any, scope: Scope) -> Any:
    """What `tree` renders to, `scope["output"]` if it is None; a tree with at most one stream in it."""
    if tree is None:
        return scope["output"]
    stream = stream_in(scope["output"])
    if stream is None:
        return _declared(tree, _of_whole(tree, scope))
    if stream is scope["output"] and _comes_in_items(stream) and _is_each(tree):
        return ItemStream(_mapped(stream, tree, scope), "text" if _casts_to_text(tree) else None)
    if (handed_on := hand_on(tree, scope)) is not None:
        return handed_on
    value = await stream.value()
    return _declared(tree, _of_whole(tree, {root: put_for(stream, value, known) for root, known in scope.items()}))


def _declared(tree: Any, value: Any) -> Any:
    """A value that is there already, as the stream that the tree says it is to be sent as."""
    form = tree.only.cast.type if isinstance(tree, Template) and tree.only and tree.only.cast else ""
    if value is None or not form.startswith("stream/"):
        return value
    items = value if isinstance(value, list) else [value]
    return ItemStream(_each_of(items), "text" if form == "stream/text" else "json")


async def _each_of(items: list[Any]) -> AsyncGenerator[Any]:
    for item in items:
        yield item


def _of_whole(tree: Any, scope: Scope) -> Any:
    """`tree` rendered where nothing is still to come; once for each item of a list if it speaks of `item`."""
    if not any(reference.root == ITEM for reference in references_in(tree)):
        return render_deep(tree, scope)
    whole = scope["output"]
    values = [render_deep(tree, {**scope, ITEM: item}) for item in (whole if isinstance(whole, list) else [whole])]
    return [value for value in values if value is not None]


def hand_on(tree: Any, scope: Scope) -> Any:
    """`tree` rendered with the scope's stream untouched in it; None if it has to be whole first."""
    touching = [reference for reference in references_in(tree) if _touches(reference, scope)]
    if len(touching) != 1:
        return None
    put = _put_whole(tree, touching[0], scope)
    return None if put is None else render_deep(put, scope)


def _put_whole(tree: Any, reference: Reference, scope: Scope) -> Any:
    """`tree` with the value of `reference` in the place of the template that is it; None if there is none such."""
    match tree:
        case Template():
            return _handed(reference, scope) if tree.only is reference else None
        case list():
            found = [_put_whole(item, reference, scope) for item in tree]
            return _replaced(dict(enumerate(tree)), dict(enumerate(found)), list)
        case dict():
            return _replaced(tree, {key: _put_whole(item, reference, scope) for key, item in tree.items()}, dict)
    return None


def _replaced(tree: dict[Any, Any], found: dict[Any, Any], kind: type) -> Any:
    if all(item is None for item in found.values()):
        return None
    whole = {key: tree[key] if found[key] is None else found[key] for key in tree}
    return list(whole.values()) if kind is list else whole


def _handed(reference: Reference, scope: Scope) -> Any:
    """The stream, or the tree around it, that a whole reference stands for; None if its cast needs the value."""
    value = resolve(Reference(reference.root, reference.steps), scope)
    form = None if reference.cast is None else reference.cast.type
    if not isinstance(value, ModelStream | ItemStream):
        return value if reference.cast is None and any(streams_in(value)) else None
    if form not in _HANDED_ON or (reference.cast is not None and reference.cast.format is not None):
        return None
    if form == "stream/text":
        return value.declared("text")
    return value.declared("json") if form == "stream/json" else value


def _touches(reference: Reference, scope: Scope) -> bool:
    """Whether the way of a reference leads to, through or around a stream."""
    for length in range(len(reference.steps)):
        value = resolve(Reference(reference.root, reference.steps[:length]), scope)
        if isinstance(value, ModelStream | ItemStream):
            return True
        if not any(streams_in(value)):
            return False
    return any(streams_in(resolve(Reference(reference.root, reference.steps), scope)))


def _comes_in_items(stream: Stream) -> bool:
    return isinstance(stream, ItemStream) or not (stream.is_list or stream.n > 1)


def _is_each(tree: Any) -> bool:
    return any(is_each_item(reference) for reference in references_in(tree))


def is_each_item(reference: Reference) -> bool:
    """Whether a reference stands for one item of a stream at a time."""
    return reference.root == ITEM or (reference.root in _EACH_ROOTS and reference.steps[:1] == (Each(),))


def _casts_to_text(tree: Any) -> bool:
    return isinstance(tree, Template) and (
        tree.only is None or tree.only.cast in (Cast("text"), Cast("string"), Cast("stream/text"))
    )


async def _mapped(stream: Stream, tree: Any, scope: Scope) -> AsyncGenerator[Any]:
    async with aclosing(stream.items()) as items:
        async for item in items:
            value = render_deep(tree, {**scope, **dict.fromkeys(_EACH_ROOTS, StreamItem(item)), ITEM: item})
            if value is not None:
                yield value
