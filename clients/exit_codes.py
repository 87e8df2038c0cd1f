"""What a command ends with; 0 is success."""

from ..adapters.errors import ComposeError, ConfigError, InvalidRequest, ModelNotFound, Unauthorized

FAILED = 1
WRONG = 2
"""What was asked for cannot be done as it was asked."""

INTERRUPTED = 130
"""Ctrl-C, as shells have it."""


def exit_code_of(error: ComposeError) -> int:
    """Whether the one who asked has to ask for something else, or merely had no luck."""
    return WRONG if isinstance(error, ConfigError | InvalidRequest | ModelNotFound | Unauthorized) else FAILED
