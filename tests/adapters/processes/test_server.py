"""Servers that are managed: waited for, watched, started again, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import httpx2
import pytest
from children import be_quick, gone_within, is_there, reaches, small_server, started_in, workers_in

from modelcompose.adapters.errors import ModelUnavailable
from modelcompose.adapters.processes.server import ManagedServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


async def pid_of(server: ManagedServer) -> int:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return int((await client.get(f"{server.settings.url}/who")).json()["pid"])


async def test_a_server_is_loading_then_ready_then_stopped(tmp_path: Path) -> None:
    async with small_server(tmp_path, "slow=0.5", "workers", install=("echo Downloading 90 MB; sleep 0.3",)) as server:
        state = await reaches(server, "loading", "installing: Downloading 90 MB")
        with pytest.raises(ModelUnavailable, match="small is not ready yet: installing") as refused:
            server.check()
        assert refused.value.retry_after == 2
        state = await reaches(server, "loading", "starting: Loading the weights")
        assert state.progress is None
        await server.ready()
        await reaches(server, "ready")
        pids = [await pid_of(server), *workers_in(tmp_path)]
    await reaches(server, "stopped")
    assert not any(map(is_there, pids))
    with pytest.raises(ModelUnavailable, match="small is not available: stopped"):
        server.check()


async def test_a_server_that_ends_at_once_fails_at_once_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_server(tmp_path, "broken") as server:
        with pytest.raises(ModelUnavailable) as refused:
            await asyncio.wait_for(server.ready(), 10)
        assert refused.value.message == (
            "small is not available: the start command ended with exit status 1: ValueError: these weights are broken"
        )
    assert "Traceback" in caplog.text
    assert "small cannot be served: the start command ended" in caplog.text


async def test_a_server_that_never_answers_fails_when_its_time_is_over(tmp_path: Path) -> None:
    async with small_server(tmp_path, "slow=60", timeout=1) as server:
        state = await reaches(server, "failed")
        assert state.detail == "did not answer within 1 s: Loading the weights"
        assert gone_within(1, *started_in(tmp_path))


async def test_a_server_that_dies_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ups: list[bool] = []
    server = small_server(tmp_path, "workers", "slow=0.3")
    server._changed = ups.append
    async with server:
        await server.ready()
        first, workers = await pid_of(server), workers_in(tmp_path)
        os.kill(first, signal.SIGKILL)
        await reaches(server, "loading", "starting again")
        with pytest.raises(ModelUnavailable, match="small is not back yet") as refused:
            server.check()
        assert refused.value.retry_after
        await server.ready()
        assert await pid_of(server) != first
        assert not any(map(is_there, workers))
        assert ups == [True, False, True]
    assert ups == [True, False, True, False]
    assert "small was ended by SIGKILL; it is started again" in caplog.text


async def test_a_server_that_cannot_be_started_again_is_tried_ever_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_server(tmp_path) as server:
        await server.ready()
        script = tmp_path / "small_server.py"
        text = script.read_text()
        script.write_text("raise SystemExit('not now')")
        os.kill(await pid_of(server), signal.SIGKILL)
        while caplog.text.count("could not be started again") < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert server.state.phase == "loading"
        assert "not now" in caplog.text
        script.write_text(text)
        await server.ready()


async def test_a_port_that_is_taken_is_named_with_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with small_server(tmp_path, port=port) as server:
            state = await reaches(server, "failed")
    assert f"port {port} is taken by " in state.detail
    assert f"(process {os.getpid()})" in state.detail
    assert not (tmp_path / "marks").exists()


async def test_leaving_while_it_is_installed_ends_that(tmp_path: Path) -> None:
    async with small_server(tmp_path, install=("echo $$; sleep 1000",)) as server:
        state = await reaches(server, "loading", "installing: ")
    assert not is_there(int(state.detail.rpartition(" ")[2]))
    assert server.state.phase == "stopped"
