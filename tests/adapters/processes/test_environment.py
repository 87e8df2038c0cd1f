"""What commands see of the environment of this program."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.processes.environment import activated, clean, find_python, needs_environment
from modelcompose.adapters.processes.process import Command

PYENV = 'eval "$(pyenv init -)" && pyenv activate vllm && pip install vllm'


def test_our_own_virtual_environment_and_import_path_stay_out() -> None:
    ours = {
        "PATH": f"{sys.prefix}/bin:/usr/bin",
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONPATH": "x",
        "MODEL_COMPOSE_API_KEY": "secret",
        "HF_TOKEN": "t",
    }
    assert sys.prefix != sys.base_prefix
    assert clean(ours) == {"PATH": "/usr/bin", "HF_TOKEN": "t"}


def test_the_users_active_environment_stays() -> None:
    env = {"PATH": "/home/me/env/bin:/usr/bin", "VIRTUAL_ENV": "/home/me/env"}
    assert clean(env) == env


def test_an_environments_programs_come_first() -> None:
    env = activated({"PATH": "/usr/bin"}, Path("/venv"))
    assert env == {"PATH": "/venv/bin:/usr/bin", "VIRTUAL_ENV": "/venv"}


@pytest.mark.parametrize(
    ("commands", "env", "needs"),
    [
        (["pip install vllm"], {}, True),
        (["cd x && python3 -m pip install vllm"], {}, True),
        ([("python", "-m", "pip", "install", "vllm")], {}, True),
        (["pip install vllm"], {"VIRTUAL_ENV": "/x"}, False),
        (["pip install vllm"], {"CONDA_PREFIX": "/x"}, False),
        ([("bash", "-c", PYENV)], {}, False),
        (["python3 -m venv .vllm", ".vllm/bin/pip install vllm"], {}, False),
        (["uv pip install vllm"], {}, False),
        (["make", "npm install"], {}, False),
        ([], {}, False),
    ],
)
def test_who_needs_an_environment_of_its_own(commands: list[Command], env: dict[str, str], needs: bool) -> None:
    assert needs_environment(commands, env) is needs


async def test_pythons_are_found_by_version_and_path() -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = await find_python(None)
    assert not found.startswith(sys.prefix)
    assert await find_python(own) == found
    assert await find_python(found) == found
    with pytest.raises(ConfigError, match=r"there is no Python 3\.2 here; install it"):
        await find_python("3.2")
    with pytest.raises(ConfigError, match="is no Python"):
        await find_python(os.devnull)
