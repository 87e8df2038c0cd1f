"""Fixtures of the engine's tests."""

from long_models import long_model
from tiny_models import tiny_model

__all__ = ["long_model", "tiny_model"]
