"""The runs API: answers, errors, streams, tasks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from composing import chat, echoing, one
from runs_server import Served, events_of, last_of, serving
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ModelUnavailable, UpstreamError
from modelcompose.adapters.events import Finish, TextDelta, Usage
from modelcompose.server.settings import Settings

ECHO = one(chat(output={"generated": "${output}"}), id="echo", title="Echo", description="Says it again")
STREAM = one(chat(output="${output as stream/text}"), id="echo")
TWO_JOBS = {
    "components": [chat("draft"), chat("polish")],
    "workflows": [
        {
            "id": "two",
            "jobs": [
                {"id": "first", "component": "draft"},
                {"id": "second", "component": "polish", "input": {"prompt": "Polish: ${jobs.first.output}"}},
            ],
        }
    ],
}
FOREVER: list[Step] = [TextDelta("a")]
for _ in range(10_000):
    FOREVER += [0.01, TextDelta("b")]


def scripts(**by_model: Any) -> ScriptedAdapter:
    return ScriptedAdapter(by_model or {"m": echoing})


async def eventually(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 5 s")


# Answers


async def test_a_run_answers_with_its_task() -> None:
    async with serving(ECHO, scripts()) as server:
        response = await server.run({"prompt": "hello"})
    assert response.status_code == 200
    assert response.json() == {
        "task_id": response.json()["task_id"],
        "status": "completed",
        "output": {"generated": "You said: hello"},
    }


async def test_output_only_is_the_bare_output() -> None:
    async with serving(ECHO, scripts()) as server:
        response = await server.run({"prompt": "hello"}, output_only=True)
    assert response.json() == {"generated": "You said: hello"}


async def test_the_default_workflow_is_run_or_the_one_that_is_named() -> None:
    shells = [{"id": name, "type": "shell", "actions": [{"command": ["echo", name]}]} for name in ("a", "b")]
    flows: list[dict[str, Any]] = [
        {"id": name, "jobs": [{"component": name, "output": "${output.stdout}"}]} for name in ("a", "b")
    ]
    flows[1]["default"] = True
    async with serving({"components": shells, "workflows": flows}) as server:
        assert (await server.run(output_only=True)).json() == "b\n"
        assert (await server.run(output_only=True, workflow_id="a")).json() == "a\n"
        unknown = await server.run(workflow_id="c")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "there is no workflow 'c'; this file has: a, b"
    assert unknown.json()["error"]["param"] == "workflow_id"


async def test_a_hyphenated_name_is_the_same_input() -> None:
    messages = [{"role": "system", "content": "${input.system_prompt}"}, {"role": "user", "content": "${input.q}"}]
    adapter = scripts(m=says("yes"))
    async with serving(one(chat(messages=messages), id="w"), adapter) as server:
        assert (await server.run({"system-prompt": "Be brief.", "q": "?"})).status_code == 200
    assert adapter.requests[0].messages[0] == {"role": "system", "content": "Be brief."}


# Errors


@pytest.mark.parametrize("given", [None, {}, {"prompt": None}, {"Prompt": "x"}])
async def test_a_missing_input_is_a_400_that_names_it(given: Any) -> None:
    async with serving(ECHO, scripts()) as server:
        response = await server.run(given)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["message"], error["param"]) == ("workflow 'echo' needs the input 'prompt'", "prompt")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"inputs": {"prompt": "x"}}, 400, "inputs"),
        ({"input": {"prompt": "x"}, "wait_for_completion": "maybe"}, 400, "wait_for_completion"),
        ({"workflow_id": 3}, 400, "workflow_id"),
        ([], 400, None),
    ],
)
async def test_a_wrong_body_is_refused_by_name(body: Any, status: int, param: str | None) -> None:
    async with serving(ECHO, scripts()) as server:
        response = await server.http.post("/api/workflows/runs", json=body)
        empty = await server.http.post("/api/workflows/runs")
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert empty.status_code == 400


async def test_a_run_that_fails_answers_a_5xx_with_its_task_and_the_job() -> None:
    adapter = scripts(draft=says("x"), polish=[ModelUnavailable("polish is loading", retry_after=2)])
    async with serving(TWO_JOBS, adapter) as server:
        response = await server.run({"prompt": "x"})
        task = await server.task(response.json()["task_id"])
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    body = response.json()
    assert body["status"] == "failed"
    assert (body["error"]["message"], body["error"]["job"]) == ("polish is loading", "second")
    assert "output" not in body
    assert task["error"] == body["error"]
    assert task["jobs"] == {"first": "completed", "second": "failed"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UpstreamError("no such key", status=401), 502),
        (UpstreamError("broken", status=504), 504),
        (ValueError("secret /path"), 500),
    ],
)
async def test_what_goes_wrong_inside_is_never_the_clients_fault_and_never_told_in_full(
    error: Exception, status: int
) -> None:
    async with serving(ECHO, scripts(m=[error])) as server:
        response = await server.run({"prompt": "x"})
    assert response.status_code == status
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert "Traceback" not in response.text


async def test_a_value_of_the_wrong_type_is_a_400_although_the_run_had_begun() -> None:
    form = one(chat(params={"temperature": "${input.temperature as number | 0.7}"}), id="w")
    async with serving(form, scripts()) as server:
        response = await server.run({"prompt": "x", "temperature": "warm"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "input.temperature" in response.json()["error"]["message"]


async def test_without_its_key_nothing_is_told() -> None:
    settings = Settings(api_keys=("secret",))
    async with serving(ECHO, scripts(), settings) as server:
        assert (await server.run({"prompt": "x"})).status_code == 401
        for path in ("/api/workflows", "/api/workflows/echo/schema", "/api/tasks/x"):
            assert (await server.http.get(path)).status_code == 401
        server.http.headers["authorization"] = "Bearer secret"
        assert (await server.run({"prompt": "x"})).status_code == 200


# Forms


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", "input[prompt]=hello+there&workflow_id=echo&output_only=true"),
        ("application/x-www-form-urlencoded", "input%5Bprompt%5D=hello%20there&output_only=1"),
        ("application/x-www-form-urlencoded", '{"input": {"prompt": "hello there"}, "output_only": true}'),
        (
            "multipart/form-data; boundary=x",
            (
                '--x\r\nContent-Disposition: form-data; name="input[prompt]"\r\n\r\nhello there\r\n'
                '--x\r\nContent-Disposition: form-data; name="output_only"\r\n\r\ntrue\r\n--x--\r\n'
            ),
        ),
    ],
)
async def test_forms(content_type: str, body: str) -> None:
    async with serving(ECHO, scripts()) as server:
        response = await server.http.post(
            "/api/workflows/runs", content=body.encode(), headers={"content-type": content_type}
        )
    assert response.json() == {"generated": "You said: hello there"}


# Streams


async def test_a_declared_stream_answers_with_events() -> None:
    async with serving(STREAM, scripts(m=says("One\ntwo", " ", "\r\n", "three"))) as server:
        response = await server.run({"prompt": "x"})
        bare = await server.run({"prompt": "x"}, output_only=True)
    events = events_of(response.content)
    assert [(event.name, event.data) for event in events[:-1]] == [
        ("", "One\ntwo"),
        ("", " "),
        ("", "\n"),
        ("", "three"),
    ]
    assert events[-1].name == "completed"
    assert last_of(events)["output"] == "One\ntwo \r\nthree"
    assert b"data: One\ndata: two\n\n" in response.content
    assert [event.name for event in events_of(bare.content)] == ["", "", "", "", "completed"]


async def test_pieces_arrive_while_the_model_still_generates() -> None:
    go_on = asyncio.Event()
    adapter = scripts(m=[TextDelta("early"), go_on, *says(" late")])
    async with serving(STREAM, adapter) as server, server.stream({"prompt": "x"}) as response:
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"data: early\n\n"
        go_on.set()
        rest = b"".join([chunk async for chunk in chunks])
    assert [event.name for event in events_of(rest)] == ["", "completed"]


async def test_json_items_are_one_event_each() -> None:
    async with serving(one(chat(output="${output as stream/json}"), id="w"), scripts(m=says("a\n", "b"))) as server:
        events = await server.events({"prompt": "x"})
    assert [event.data for event in events[:-1]] == ['"a\\n"', '"b"']


async def test_a_stream_that_fails_before_its_first_piece_is_a_status() -> None:
    async with serving(STREAM, scripts(m=[ModelUnavailable("loading")])) as server:
        response = await server.run({"prompt": "x"})
    assert response.status_code == 503
    assert response.json()["status"] == "failed"


async def test_a_stream_that_fails_later_ends_with_failed() -> None:
    async with serving(STREAM, scripts(m=[TextDelta("half"), UpstreamError("it broke")])) as server:
        events = await server.events({"prompt": "x"})
    assert [event.name for event in events] == ["", "failed"]
    assert last_of(events)["status"] == "failed"
    assert last_of(events)["error"]["message"] == "it broke"
    assert last_of(events)["error"]["job"] == "default"


async def test_a_silent_stream_is_kept_alive_from_before_its_first_piece() -> None:
    slow: list[Step] = [0.25, TextDelta("x"), 0.25, *says("y")]
    async with serving(STREAM, scripts(m=slow), Settings(keep_alive=0.05)) as server:
        response = await server.run({"prompt": "x"})
    before, _, after = response.content.partition(b"data: x")
    assert b": keep-alive\n\n" in before
    assert b": keep-alive\n\n" in after
    assert [event.data for event in events_of(response.content)[:-1]] == ["x", "y"]


async def test_the_client_may_ask_for_a_stream_and_gets_news_of_the_jobs() -> None:
    async with serving(TWO_JOBS, scripts(draft=says("d"), polish=says("p", "q"))) as server:
        events = await server.events({"prompt": "x"}, stream=True)
    assert [(event.name, event.data) for event in events[:-1]] == [
        ("job", '{"job":"first","status":"processing"}'),
        ("job", '{"job":"first","status":"completed"}'),
        ("job", '{"job":"second","status":"processing"}'),
        ("output", '{"form":"text"}'),
        ("", "p"),
        ("", "q"),
    ]
    assert last_of(events)["output"] == "pq"


async def test_an_answer_within_an_object_is_told_in_pieces_to_those_who_ask() -> None:
    form = one(chat(), id="w", output={"generated": "${output}", "kind": "chat"})
    async with serving(form, scripts(m=says("a", "b"))) as server:
        events = await server.events({"prompt": "x"}, stream=True)
        whole = await server.run({"prompt": "x"})
    pieces = [event.data for event in events if event.name == "field"]
    assert pieces == ['{"field":"generated","text":"a"}', '{"field":"generated","text":"b"}']
    assert last_of(events)["output"] == whole.json()["output"] == {"generated": "ab", "kind": "chat"}


async def test_the_client_may_refuse_a_stream() -> None:
    async with serving(STREAM, scripts(m=says("a", "b"))) as server:
        response = await server.run({"prompt": "x"}, stream=False)
    assert response.json()["output"] == "ab"


# Leaving


async def test_a_client_that_stops_waiting_ends_its_run() -> None:
    adapter = scripts(m=FOREVER)
    async with serving(ECHO, adapter) as server:
        with pytest.raises(httpx2.ReadTimeout):
            await server.http.post("/api/workflows/runs", json={"input": {"prompt": "x"}}, timeout=0.2)
        await eventually(lambda: adapter.closed_early == 1)


async def test_a_client_that_leaves_a_stream_ends_its_run() -> None:
    adapter = scripts(m=FOREVER)
    async with serving(STREAM, adapter) as server:
        async with server.stream({"prompt": "x"}) as response:
            await anext(response.aiter_bytes())
            id = response.headers["x-task-id"]
        await eventually(lambda: adapter.closed_early == 1)
        task = await server.until(id, "cancelled")
        assert task["error"]["type"] == "cancelled_error"
        assert "nobody waited for it any more" in task["error"]["message"]


async def test_a_server_that_shuts_down_says_so_in_its_streams() -> None:
    async with serving(STREAM, scripts(m=FOREVER)) as server, server.stream({"prompt": "x"}) as response:
        chunks = response.aiter_bytes()
        content = await anext(chunks)
        server.server.should_exit = True
        content += b"".join([chunk async for chunk in chunks])
    events = events_of(content)
    assert events[-1].name == "failed"
    assert last_of(events)["error"]["message"] == "This server is shutting down."


async def test_runs_that_nobody_waits_for_end_with_the_server() -> None:
    adapter = scripts(m=FOREVER)
    async with serving(ECHO, adapter) as server:
        await server.run({"prompt": "x"}, wait_for_completion=False)
        await eventually(lambda: adapter.requests)
    assert adapter.closed_early == 1


# Tasks


async def test_a_run_that_nobody_waits_for_goes_on_and_can_be_looked_at() -> None:
    go_on = asyncio.Event()
    async with serving(ECHO, scripts(m=[go_on, *says("done")])) as server:
        response = await server.run({"prompt": "x"}, wait_for_completion=False)
        assert response.status_code == 202
        id = response.json()["task_id"]
        assert response.json() == {"task_id": id, "status": "pending"}
        running = await server.until(id, "processing")
        assert "output" not in running
        go_on.set()
        task = await server.until(id, "completed")
    assert task["output"] == {"generated": "done"}
    assert task["workflow_id"] == "echo"
    assert task["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    assert task["created_at"] <= task["finished_at"]


async def test_a_task_can_be_cancelled_whoever_waits_for_it() -> None:
    adapter = scripts(m=FOREVER)
    async with serving(STREAM, adapter) as server:
        id = (await server.run({"prompt": "x"}, wait_for_completion=False)).json()["task_id"]
        await server.until(id, "processing")
        cancelled = (await server.http.post(f"/api/tasks/{id}/cancel")).json()
        assert (cancelled["status"], cancelled["jobs"]) == ("cancelled", {"default": "cancelled"})
        assert cancelled["error"] == {
            "message": "the run was cancelled",
            "type": "cancelled_error",
            "param": None,
            "code": "cancelled",
            "job": None,
        }
        assert (await server.http.post(f"/api/tasks/{id}/cancel")).json() == cancelled
        assert (await server.http.get(f"/api/tasks/{id}")).json() == cancelled
        assert adapter.closed_early == 1


async def test_cancelling_a_run_that_streams_ends_its_stream_with_failed() -> None:
    async with serving(STREAM, scripts(m=FOREVER)) as server, server.stream({"prompt": "x"}, stream=True) as response:
        chunks = response.aiter_bytes()
        content = await anext(chunks)
        id = response.headers["x-task-id"]
        await server.http.post(f"/api/tasks/{id}/cancel")
        content += b"".join([chunk async for chunk in chunks])
    events = events_of(content)
    assert events[-1].name == "failed"
    assert last_of(events)["status"] == "cancelled"


async def test_an_unknown_task_is_a_404() -> None:
    async with serving(ECHO, scripts()) as server:
        for response in (await server.http.get("/api/tasks/x"), await server.http.post("/api/tasks/x/cancel")):
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "task_not_found"


# What there is


async def test_the_workflows_and_what_they_read() -> None:
    async with serving(ECHO, scripts()) as server:
        listed = (await server.http.get("/api/workflows")).json()
        schema = (await server.http.get("/api/workflows/echo/schema")).json()
        unknown = await server.http.get("/api/workflows/nothing/schema")
    card = {"workflow_id": "echo", "title": "Echo", "description": "Says it again", "default": True, "model": "echo"}
    assert listed == [card]
    assert schema["workflow"] == card
    assert schema["input"] == [
        {"name": "system_prompt", "type": "text", "required": False, "default": None, "description": None},
        {"name": "prompt", "type": "text", "required": True, "default": None, "description": None},
    ]
    assert unknown.status_code == 404


async def test_health_is_there_under_both_paths() -> None:
    async with serving(ECHO, scripts()) as server:
        for path in ("/health", "/api/health"):
            assert (await server.http.get(path)).json()["status"] == "ok"


async def test_another_base_path_or_none() -> None:
    for base_path in ("", "/v2/flows"):
        async with serving(ECHO, scripts(), Settings(base_path=base_path)) as server:
            response = await server.http.post(f"{base_path}/workflows/runs", json={"input": {"prompt": "x"}})
            assert response.status_code == 200
            assert (await server.http.get(f"{base_path}/health")).status_code == 200
            assert (await server.http.get("/v1/models")).status_code == 200


async def test_the_documentation_has_it_all() -> None:
    async with serving(ECHO, scripts()) as server:
        page = (await server.http.get("/openapi.json")).json()
    assert {path for path in page["paths"] if path.startswith("/api/")} == {
        "/api/workflows/runs",
        "/api/workflows",
        "/api/workflows/{workflow_id}/schema",
        "/api/tasks/{task_id}",
        "/api/tasks/{task_id}/cancel",
    }
    post = page["paths"]["/api/workflows/runs"]["post"]
    assert "text/event-stream" in post["responses"]["200"]["content"]
    assert "multipart/form-data" in post["requestBody"]["content"]
    for reference in set(json.dumps(page).split('"$ref": "')[1:]):
        name = reference.partition('"')[0].removeprefix("#/components/schemas/")
        assert name in page["components"]["schemas"]


async def test_a_server_without_workflows_has_no_runs() -> None:
    from modelcompose.server.app import create_app

    app = create_app([ScriptedAdapter({"m": says("x")})], Settings())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/api/workflows")).status_code == 404
        assert "/api/workflows" not in (await client.get("/openapi.json")).json()["paths"]


# Load


async def test_two_hundred_streamed_runs_at_once_are_neither_lost_nor_mixed() -> None:
    def script(request: GenerationRequest) -> list[Step]:
        name = request.messages[-1]["content"]
        pieces: list[Step] = []
        for number in range(20):
            pieces += [TextDelta(f"{name}:{number} "), 0.0]
        return [*pieces, Finish("stop"), Usage(1, 20)]

    async def read(server: Served, name: str) -> list[str]:
        events = await server.events({"prompt": name})
        assert events[-1].name == "completed"
        assert last_of(events)["output"] == "".join(event.data for event in events[:-1])
        return [event.data for event in events[:-1]]

    names = [f"run{number}" for number in range(200)]
    async with serving(STREAM, scripts(m=script)) as server:
        answers = await asyncio.gather(*(read(server, name) for name in names))
    assert answers == [[f"{name}:{number} " for number in range(20)] for name in names]
