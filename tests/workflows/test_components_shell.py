"""Shell components: commands, their values and their ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from composing import one, runner
from hypothesis import given, settings
from hypothesis import strategies as st

from modelcompose.adapters.errors import ComposeError, ConfigError, InvalidRequest
from modelcompose.workflows.components import process
from modelcompose.workflows.components.shell import command_of
from modelcompose.workflows.schema import ShellAction, parse_deep


def shell(command: Any, **action: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {name: action.pop(name) for name in ("env", "working_dir", "timeout") if name in action}
    return {"id": "sh", "type": "shell", **fields, "actions": [{"command": command, **action}]}


async def run(component: dict[str, Any], given: Any = None, folder: Path | None = None) -> Any:
    async with runner(one(component), folder=folder) as opened, opened.run(given=given) as running:
        return await running.value()


async def test_a_text_is_for_the_shell() -> None:
    value = await run(shell("echo one; echo two >&2; exit 3"))
    assert value == {"stdout": "one\n", "stderr": "two\n", "exit_code": 3}


async def test_words_are_run_as_they_stand() -> None:
    assert (await run(shell(["echo", "$HOME", "${input.x}"]), {"x": "; id"}))["stdout"] == "$HOME ; id\n"


async def test_a_list_of_one_line_is_for_the_shell() -> None:
    assert (await run(shell(["echo a && echo b"])))["stdout"] == "a\nb\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("printf %s ${input.x}", "{}"),
        ('printf %s "${input.x}"', "{}"),
        ("printf %s '${input.x}'", "{}"),
        ("printf %s \"a 'b' ${input.x}\"", "a 'b' {}"),
        ("printf %s pre${input.x}post", "pre{}post"),
        ("printf %s it\\'s${input.x}", "it's{}"),
    ],
)
@pytest.mark.parametrize("value", ["two words", "$(id)", "`id`", "'; id; '", '"; id; "', "\\", "*", "a\nb"])
async def test_a_value_is_never_part_of_the_shells_syntax(line: str, shown: str, value: str) -> None:
    assert (await run(shell(line), {"x": value}))["stdout"] == shown.format(value)


@given(
    line=st.lists(st.sampled_from(["${input.x}", "'", '"', "\\", " ", "$(", ")", "echo", "`", "#", "\n"])).map("".join),
    value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
)
@settings(max_examples=200)
def test_a_value_never_stands_in_the_line(line: str, value: str) -> None:
    marked = f"<<{value}>>"
    action = ShellAction(command=parse_deep(f"x {line} ${{input.x}}"))
    words, values = command_of(action, {"input": {"x": marked}})
    assert marked not in words[2]
    assert set(values.values()) == {marked}


async def test_a_lone_reference_is_a_whole_command() -> None:
    assert (await run(shell("${input.command}"), {"command": "echo a; echo b"}))["stdout"] == "a\nb\n"
    assert (await run(shell("${input.command}"), {"command": ["echo", "a;"]}))["stdout"] == "a;\n"


async def test_no_command_is_a_missing_input() -> None:
    with pytest.raises(InvalidRequest, match="command"):
        await run(shell("${input.command}"), {})


async def test_environment_and_folder_are_the_actions_over_the_components(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    component = shell("echo $A $B; pwd", env={"A": "1", "B": "${input.b}"}, working_dir="in")
    value = await run(component, {"b": 2}, tmp_path)
    assert value["stdout"] == f"1 2\n{tmp_path / 'in'}\n"


async def test_an_output_that_does_not_look_at_the_exit_code_needs_a_success() -> None:
    assert await run(shell("echo a", output="${result.stdout}")) == "a\n"
    with pytest.raises(ComposeError, match="exit code 4: because"):
        await run(shell("echo because >&2; exit 4", output="${result.stdout}"))
    output = {"out": "${result.stdout}", "code": "${result.exit_code}"}
    assert await run(shell("echo a; exit 4", output=output)) == {"out": "a\n", "code": 4}


async def test_a_program_that_is_not_there_is_the_files_fault() -> None:
    with pytest.raises(ConfigError, match="'sh' cannot run"):
        await run(shell(["/nowhere/at/all", "x"]))


def pids_of(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def are_gone(folder: Path) -> bool:
    """Whether the processes that wrote their ids end within a moment."""
    for _ in range(200):
        if not any(map(is_alive, pids_of(folder))):
            return True
        await asyncio.sleep(0.01)
    return False


async def have_started(folder: Path) -> None:
    """Wait for both ids."""
    for _ in range(500):
        if (folder / "pids").exists() and len(pids_of(folder)) == 2:
            return
        await asyncio.sleep(0.01)


TWO_THAT_STAY = "echo $$ > pids; sleep 60 & echo $! >> pids; wait"


async def test_after_its_time_the_whole_group_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ComposeError, match=r"more than 0.3 s"):
        await run(shell(TWO_THAT_STAY, timeout=0.3), folder=tmp_path)
    assert time.monotonic() - began < 10
    assert await are_gone(tmp_path)


async def test_what_ignores_being_asked_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    with pytest.raises(ComposeError, match="more than"):
        await run(shell("trap '' TERM; " + TWO_THAT_STAY + "; wait; wait", timeout=0.3), folder=tmp_path)
    assert await are_gone(tmp_path)


async def test_cancelling_kills_the_whole_group(tmp_path: Path) -> None:
    async with runner(one(shell(TWO_THAT_STAY)), folder=tmp_path) as opened:
        async with opened.run():
            await have_started(tmp_path)
        assert await are_gone(tmp_path)


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.003, 0.01, 0.03])
async def test_cancelling_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path, moment: float) -> None:
    async with runner(one(shell(TWO_THAT_STAY)), folder=tmp_path) as opened:
        async with opened.run() as running:
            await asyncio.sleep(moment)
        assert running.state == "cancelled"
    await asyncio.sleep(0.05)
    assert not (tmp_path / "pids").exists() or await are_gone(tmp_path)


async def test_too_much_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_OUTPUT", 1000)
    for stream in ("1", "2"):
        with pytest.raises(ComposeError, match="more than 1000 bytes"):
            await run(shell(f"yes >&{stream}"))


async def test_a_child_that_outlives_its_parent_is_not_waited_for_longer_than_the_timeout(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match=r"more than 0.5 s"):
        await run(shell("sleep 60 & echo $! > pids", timeout=0.5), folder=tmp_path)
    assert await are_gone(tmp_path)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_stays_open() -> None:
    await run(shell("true"))
    before = descriptors()
    for _ in range(5):
        await run(shell("true"))
    assert descriptors() <= before
