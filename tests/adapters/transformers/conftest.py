"""Fixtures of the engine's tests."""

from tiny_models import tiny_model

__all__ = ["tiny_model"]
