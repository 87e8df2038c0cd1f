"""What docs/workflows.md says about a running server, tried on one."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import httpx2
import pytest
from commands import call
from documents import blocks
from served import ENVIRONMENT, Served

PAGE = (Path(__file__).parent.parent.parent / "docs" / "workflows.md").read_text(encoding="utf-8")

ENDED = {"cancelled", "completed"}

pytestmark = pytest.mark.timeout(120)


def shell_lines() -> list[str]:
    """Every line of the page for a shell, continued ones joined."""
    text = "".join(block.text for block in blocks(PAGE, "sh")).replace("\\\n", "")
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("curl ")])
def test_a_curl_line_works_as_it_is_pasted(line: str, workflow_server: Served) -> None:
    line = line.replace("http://localhost:8080", workflow_server.url).replace("curl ", "curl -sS --fail-with-body ", 1)
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    if "/v1/" in line:
        assert ended.stdout.endswith("data: [DONE]\n\n")
    elif "/workflows/runs" not in line:
        assert "user_prompt" in ended.stdout or "customer-support" in ended.stdout
    elif "wait_for_completion" in line:
        task = json.loads(ended.stdout)
        assert httpx2.get(f"{workflow_server.url}/api/tasks/{task['task_id']}").json()["workflow_id"] == "assistant"
        assert httpx2.post(f"{workflow_server.url}/api/tasks/{task['task_id']}/cancel").json()["status"] in ENDED
    else:
        assert json.loads(ended.stdout)["output"].strip()


def test_its_python_prints_an_answer(workflow_server: Served) -> None:
    (block,) = blocks(PAGE, "python")
    program = block.text.replace("http://localhost:8080", workflow_server.url)
    ended = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()


@cache
def help_of(command: str) -> str:
    return call(command, "--help").stdout


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("model-compose ")])
def test_a_command_has_the_options_that_are_shown(line: str) -> None:
    _, command, *words = shlex.split(line, comments=True)
    shown = help_of(command)
    assert shown
    for option in (word for word in words if word.startswith("-")):
        assert f" {option} " in shown.replace(",", " "), option
