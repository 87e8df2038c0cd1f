"""Models that components ask by name: which names a file brings, and which nothing will ever have. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..adapters.errors import ConfigError
from .components.settings import names_of
from .graph import model_name
from .schema import ChatModelComponent, ComposeFile, NamedModel, TextModelComponent
from .tree import suggestion

if TYPE_CHECKING:
    from .load import Compose


def check_named_models(compose: Compose, others: Collection[str] = ()) -> None:
    """Raises ConfigError for a component that asks a model which the server can never have.

    `others` are the server's models beside those of the file.
    """
    for component, name in unknown_models(compose, others).items():
        near = suggestion(name, sorted({*_names(compose), *others}))
        raise ConfigError(
            f"component '{component}' asks the model '{name}', which this server will not have "
            f"unless --model {name}=... adds it{near}"
        )


def unknown_models(compose: Compose, others: Collection[str] = ()) -> dict[str, str]:
    """The models that components name and that neither the file nor `others` has, by the components' ids.

    None are known to be such while servers elsewhere may have any.
    """
    if any(names_of(each, compose.folder) is None for each in _models(compose.file)):
        return {}
    known = {*_names(compose), *others}
    asked = {each.id: each.model.name for each in _models(compose.file) if isinstance(each.model, NamedModel)}
    return {id: name for id, name in asked.items() if name not in known}


def bringing(name: str, compose: Compose) -> list[str]:
    """The ids of the components whose models are, or may be, called that."""
    found = {each.id: names_of(each, compose.folder) for each in _models(compose.file)}
    return [id for id, names in found.items() if names is None or name in names]


def _names(compose: Compose) -> frozenset[str]:
    brought = [names_of(each, compose.folder) or frozenset[str]() for each in _models(compose.file)]
    return frozenset(map(model_name, compose.file.workflows)).union(*brought)


def _models(file: ComposeFile) -> list[ChatModelComponent | TextModelComponent]:
    return [each for each in file.components if isinstance(each, ChatModelComponent | TextModelComponent)]
