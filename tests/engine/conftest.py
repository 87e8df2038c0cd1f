"""Fixtures of the engine's long tests."""

from long_models import long_model

__all__ = ["long_model"]
