"""Importing transformers without PyTorch's compiler, which is a third of the time that an engine takes to start."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
MARKS_FOR_THE_COMPILER = {"allow_in_graph", "assume_constant_result", "disable"}
TRACING = f"{COMPILER}._trace_wrapped_higher_order_op"


class CompilerNotNeededYet(ModuleType):
    """In the place of `torch._dynamo`: its decorators do nothing; whoever wants anything else gets the real module."""

    def __getattr__(self, name: str) -> Any:
        if name in MARKS_FOR_THE_COMPILER:
            return _as_it_is
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(COMPILER), name)


class TracingNotNeededYet(ModuleType):
    """In the place of a module of the compiler whose classes transformers names: the real ones come when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def real(*arguments: Any, **keywords: Any) -> Any:
            return getattr(_real(TRACING), name)(*arguments, **keywords)

        return real


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, transformers is imported and loads models as if PyTorch came without compiler and distributed tensors.

    Nothing here uses them, and they are some 400 modules. Where a model is to be compiled, import outside.
    """
    import torch

    if COMPILER in sys.modules:
        yield
        return
    stand_in = CompilerNotNeededYet(COMPILER)
    stand_in.__path__ = []  # or its modules could not be named
    sys.modules |= {COMPILER: stand_in, TRACING: TracingNotNeededYet(TRACING)}
    vars(torch)["_dynamo"] = stand_in
    is_distributed_available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_distributed_available
        _take_away()


def _real(name: str) -> ModuleType:
    _take_away()
    return importlib.import_module(name)


def _take_away() -> None:
    import torch

    for name in (COMPILER, TRACING):
        if isinstance(sys.modules.get(name), CompilerNotNeededYet | TracingNotNeededYet):
            del sys.modules[name]
    if isinstance(vars(torch).get("_dynamo"), CompilerNotNeededYet):
        del vars(torch)["_dynamo"]


def _as_it_is(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """A decorator that changes nothing, with and without arguments of its own."""
    return _as_it_is if function is None else function
