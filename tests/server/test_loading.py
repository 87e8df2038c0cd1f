"""Models that are taken into memory and out of it by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx2
import pytest
from scripted import ScriptedAdapter, says

from modelcompose.adapters.base import ModelCard, ModelState, Phase
from modelcompose.server.settings import Settings

Client = Callable[..., httpx2.AsyncClient]


class Loadable(ScriptedAdapter):
    """A model that is loaded and unloaded at once."""

    def __init__(self) -> None:
        super().__init__({"m": says("a")})
        self.phase: Phase = "ready"

    def cards(self) -> Sequence[ModelCard]:
        return [ModelCard(id="m", created=1, state=ModelState(self.phase))]

    def load(self, name: str) -> None:
        self.phase = "ready"

    def unload(self, name: str) -> None:
        self.phase = "unloaded"


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_a_model_is_unloaded_and_loaded_and_its_state_is_told(client: Client, prefix: str) -> None:
    model = client(Loadable())
    told = await model.post(f"{prefix}/models/unload", json={"model": "m"})
    assert (told.status_code, told.json()["id"], told.json()["status"]) == (200, "m", {"value": "unloaded"})
    health = await model.get("/health")
    assert (health.status_code, health.json()["models"][0]["state"]) == (200, "unloaded")
    told = await model.post(f"{prefix}/models/load", json={"model": "m"})
    assert told.json()["status"] == {"value": "ready"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "x"}, 404, "no model 'x' here"),
        ({"model": "plain"}, 400, "is no model that is loaded and unloaded"),
        ({}, 400, "model"),
        ({"model": 1}, 400, "expected a string"),
    ],
)
async def test_what_cannot_be_loaded_is_told(client: Client, body: object, status: int, words: str) -> None:
    reply = await client(Loadable(), ScriptedAdapter({"plain": says("a")})).post("/v1/models/load", json=body)
    assert (reply.status_code, words in reply.json()["error"]["message"]) == (status, True), reply.text


async def test_it_takes_the_key(client: Client) -> None:
    reply = await client(Loadable(), settings=Settings(api_keys=("k",))).post("/models/unload", json={"model": "m"})
    assert reply.status_code == 401


async def test_a_model_that_loads_on_demand_leaves_the_server_healthy(client: Client) -> None:
    loading = ModelCard(id="m", created=1, state=ModelState("loading", on_demand=True))
    reply = await client(ScriptedAdapter({}, [loading])).get("/health")
    assert (reply.status_code, reply.json()["models"][0]["state"]) == (200, "loading")
