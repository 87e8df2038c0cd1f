"""Settings of every test."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from modelcompose.adapters.transformers.imports import without_compiler

# One thread is the fastest for models this small, and threads that wait spinning take the cores from all else.
# It has to stand here, before torch is imported; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# The tests start a hundred Pythons of this program; each would compile all of it where nothing may be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts its background jobs deaf to Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# PyTorch's compiler takes a third of what every worker has to import, and comes when a test wants it.
with without_compiler():
    import transformers  # noqa: F401
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

pytest_plugins = ["served"]
collect_ignore = [] if os.environ.get("VLLM_ENVIRONMENT") else ["vllm"]
collect_ignore += [] if os.environ.get("CHROMIUM") else ["web"]
collect_ignore += [] if os.environ.get("LONG_TESTS") else ["engine"]

COMMANDS = {
    "adapters/processes/test_process.py",
    "adapters/processes/test_server.py",
    "adapters/vllm/test_managed.py",
    "clients/test_bench.py",
    "clients/test_chat.py",
    "clients/test_detached.py",
    "clients/test_examples.py",
    "clients/test_run.py",
    "clients/test_up_compose.py",
    "workflows/test_components_http_server.py",
    "workflows/test_documentation_server.py",
    "workflows/test_seeds_commands.py",
    "workflows/test_seeds_tiny_models.py",
}
"""Tests that start the program, and others, again and again as a user does: those of `make test-commands`."""

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

SHARED_SERVERS = ("workflow_server", "served")


class OneProcessForEachServer(LoadFileScheduling):  # type: ignore[misc]
    """The tests of a file in one process, and those of files that share a server in one, so that it is started once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        text = (Path(__file__).parent.parent / file).read_text(encoding="utf-8")
        return next((server for server in SHARED_SERVERS if re.search(rf"\b{server}: Served[,)]", text)), file)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Either those of COMMANDS or the others are run; None: unless something else leaves them out."""
    is_command = str(collection_path).endswith(tuple(COMMANDS))
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and is_command != bool(os.environ.get("COMMAND_TESTS")) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneProcessForEachServer:
    return OneProcessForEachServer(config, log)
