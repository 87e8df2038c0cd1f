"""What a command ends with; 0 is success."""

FAILED = 1
WRONG = 2
"""What was asked for cannot be done as it was asked."""

INTERRUPTED = 130
"""Ctrl-C, as shells have it."""
