"""The small chat model that comes with the program."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
