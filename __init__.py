"""model-compose: an OpenAI-compatible inference server for one's own machine."""

__version__ = "0.1.0"
