"""Settings of every test."""

import os
import signal
import sys

import hypothesis
import pytest

# One thread is the fastest for models this small, and threads that wait spinning take the cores from all else.
# It has to stand here, before torch is imported; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# The tests start a hundred Pythons of this program; each would compile all of it where nothing may be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts its background jobs deaf to Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["served"]
collect_ignore = [] if os.environ.get("VLLM_ENVIRONMENT") else ["vllm"]
collect_ignore += [] if os.environ.get("CHROMIUM") else ["web"]
collect_ignore += [] if os.environ.get("LONG_TESTS") else ["engine"]

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

SHARED_SERVERS = ("served", "workflow_server")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and all tests of a shared server in one, so that it is started once."""
    for item in items:
        named: list[str] = getattr(item, "fixturenames", [])
        group = next((server for server in SHARED_SERVERS if server in named), item.path.as_posix())
        item.add_marker(pytest.mark.xdist_group(group))
