"""What can be wrong with an upstream server before it has said anything a client could be told.

Trouble          the server did not answer as it should have
  Unreachable    there is no connection to it
  TooSlow        it kept silent for too long
  Broken         it ended the connection too early, or does not speak HTTP
"""

from __future__ import annotations


class Trouble(Exception):
    """The server did not answer as it should have; the message says what it did, without naming it."""


class Unreachable(Trouble):
    """There is no connection to it."""


class TooSlow(Trouble):
    """It kept silent for too long."""


class Broken(Trouble):
    """It ended the connection too early, or does not speak HTTP."""
