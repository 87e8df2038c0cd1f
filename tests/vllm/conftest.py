"""The real vLLM, which `make test-vllm` installs, and a random model for it.

vLLM takes about a minute to start, so what can be tried on one server is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import served
import tiny_models
from real_vllm import NAME, PACKAGE, VLLM

from modelcompose.adapters.processes.environment import find_python
from modelcompose.adapters.processes.places import place_of

# One thread each and little memory: several of them share a small machine, and vLLM would bind all of them to the same
# core. With the worker in the engine's process there is one process less to start. What is compiled is kept for the
# next run.
SMALL = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CACHE_ROOT": str(VLLM / "cache"),
}

INSTALLED = {"PIP_NO_DEPS": "1"}
"""Lets pip look at the one package only; the environment lacks parts that vLLM does not need for text."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model."""
    folder = tmp_path_factory.mktemp("model") / NAME
    tiny_models.for_vllm(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def homes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Folders of the tests' own for what is installed, with the environment in the place where it is looked for."""
    home = tmp_path_factory.mktemp("home")
    ours = {"XDG_DATA_HOME": str(home / "data"), "XDG_STATE_HOME": str(home / "state"), **SMALL, **INSTALLED}
    served.ENVIRONMENT.update(ours)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", ours["XDG_DATA_HOME"])
        place = place_of("environments", "vllm", asyncio.run(find_python(None)), (PACKAGE,))
    place.mkdir(parents=True)
    (place / "venv").symlink_to(VLLM)
