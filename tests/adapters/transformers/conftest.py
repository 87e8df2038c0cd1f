"""Fixtures of the engine's tests."""

import pytest
from long_models import long_model
from tiny_models import tiny_model

from modelcompose.adapters.transformers.compiler import NotCompiled, library
from modelcompose.adapters.transformers.kernels import Kernels

__all__ = ["long_model", "tiny_model"]


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    try:
        return Kernels(library())
    except NotCompiled as why:
        pytest.skip(f"nothing can be compiled here: {why}")
