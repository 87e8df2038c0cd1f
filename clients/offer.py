"""What `up` serves: the models it was told to, the workflows of the compose file, and the models behind those."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ..adapters.base import Adapter, ModelCard
from ..adapters.errors import ConfigError
from ..adapters.runs import Runs
from ..adapters.transformers.adapter import TransformersAdapter
from ..adapters.transformers.residents import Residents
from ..adapters.transformers.settings import ModelSettings

if TYPE_CHECKING:
    from ..workflows.load import Compose
    from ..workflows.runner import OpenModel

_FOR_ALL = (
    "device",
    "precision",
    "max_model_len",
    "max_concurrent_count",
    "kv_cache_memory",
    "max_batch_tokens",
    "compile",
    "preload",
    "keep_alive",
    "max_waiting_count",
    "cache_dir",
)
_FOR_ALL_IF_SET = ("trust_remote_code", "local_files_only")


class Local(Protocol):
    """Something that is run here and takes its time to load."""

    def cards(self) -> Sequence[ModelCard]: ...


class Offer(NamedTuple):
    """`models` is what clients may ask for, workflows first; `local` what is run here, also servers of components."""

    models: Sequence[Adapter]
    local: Sequence[Local]
    runs: Runs | None = None


async def open_offer(
    models: Sequence[ModelSettings], compose: Compose | None, common: ModelSettings, opened: AsyncExitStack
) -> Offer:
    """Open everything; local models load in the background. Raises ConfigError.

    `common` has what models of the compose file get where the file says nothing about it.
    """
    residents = Residents()
    named = {each.name: await opened.enter_async_context(TransformersAdapter(each, residents)) for each in models}
    if compose is None:
        return Offer(list(named.values()), list(named.values()))

    open_already = {msgspec.json.encode(each): named[each.name] for each in models}

    def open_model(settings: ModelSettings) -> AbstractAsyncContextManager[Adapter]:
        settings = with_defaults(settings, common)
        found = open_already.get(msgspec.json.encode(settings))
        return TransformersAdapter(settings, residents) if found is None else nullcontext(found)

    return await _with_workflows(named, compose, open_model, opened)


async def _with_workflows(
    named: dict[str, TransformersAdapter], compose: Compose, open_model: OpenModel, opened: AsyncExitStack
) -> Offer:
    # Pydantic and the rest of the workflows' room are of no use to those who only serve models.
    from ..workflows.model import workflow_models
    from ..workflows.named_models import check_named_models
    from ..workflows.runner import Runner
    from ..workflows.runs import WorkflowRuns

    check_named_models(compose, named)
    offered: list[Adapter] = []

    def find(name: str) -> Adapter | None:
        return next((each for each in offered if any(card.id == name for card in each.cards())), None)

    runner = await opened.enter_async_context(Runner(compose, find, open_model=open_model))
    workflows = workflow_models(runner)
    _check_names([each.name for each in workflows], list(named))
    local = [*named.values(), *(each for each in runner.local_models if each not in named.values())]
    offered += _one_of_each_name([*workflows, *local])
    return Offer(offered, [*local, *runner.servers], WorkflowRuns(runner))


def with_defaults(settings: ModelSettings, common: ModelSettings) -> ModelSettings:
    """The settings of a component's model, with `common` where the component leaves the choice open."""
    plain = ModelSettings(name="", source="")
    open_choices = [name for name in _FOR_ALL if getattr(settings, name) == getattr(plain, name)]
    open_choices += [name for name in _FOR_ALL_IF_SET if not getattr(settings, name)]
    return msgspec.structs.replace(settings, **{name: getattr(common, name) for name in open_choices})


def _check_names(workflows: Sequence[str], models: Sequence[str]) -> None:
    for name in workflows:
        if name in models:
            raise ConfigError(
                f"a workflow and a model are both called '{name}'; give the model another name: --model OTHER_NAME=..."
            )
        if workflows.count(name) > 1:
            raise ConfigError(f"two workflows are called '{name}'; give one another name with `openai.model`")


def _one_of_each_name(models: Sequence[Adapter]) -> list[Adapter]:
    """The models without those that could not be asked for, because one before them has their name."""
    found: dict[str, Adapter] = {}
    for each in models:
        cards = each.cards()
        # Servers elsewhere have not told of their models yet.
        found.setdefault(cards[0].id if cards else f" {id(each)}", each)
    return list(found.values())
