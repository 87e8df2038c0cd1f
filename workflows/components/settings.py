"""Which local model a component wants, in the adapter's words. Pure."""

from __future__ import annotations

from pathlib import Path

from ...adapters.bundled import MODEL_FOLDER
from ...adapters.errors import ConfigError
from ...adapters.transformers.settings import ModelSettings
from ..schema import BundledModel, ChatModelComponent, HubModel, LocalModel, TextModelComponent

DEFAULT_CONCURRENCY = ModelSettings(name="", source="").max_concurrent_count


def settings_of(component: ChatModelComponent | TextModelComponent, folder: Path) -> ModelSettings:
    """How to load the component's model; relative paths are relative to `folder`."""
    if component.driver != "transformers":
        raise ConfigError(f"component '{component.id}': models with `driver: {component.driver}` are not run here yet")
    name, source = _name_and_source(component, folder)
    hub = component.model if isinstance(component.model, HubModel) else HubModel(repository=source)
    return ModelSettings(
        name=name,
        source=source,
        revision=hub.revision,
        token=hub.token,
        cache_dir=hub.cache_dir,
        local_files_only=hub.local_files_only,
        trust_remote_code=component.trust_remote_code,
        device=component.device,
        precision=component.precision,
        quantization=component.quantization,
        peft_adapters=tuple(_place(each, folder) for each in component.peft_adapters),
        max_model_len=component.max_model_len,
        max_concurrent_count=component.max_concurrent_count or DEFAULT_CONCURRENCY,
    )


def _name_and_source(component: ChatModelComponent | TextModelComponent, folder: Path) -> tuple[str, str]:
    match component.model:
        case BundledModel():
            return "bundled", str(MODEL_FOLDER)
        case HubModel(repository=repository):
            return repository, repository
        case LocalModel(path=path):
            place = (folder / Path(path).expanduser()).resolve()
            return place.name, str(place)
    raise ConfigError(f"component '{component.id}' has no model of its own")


def _place(source: str, folder: Path) -> str:
    """A hub id as it is, a path as a whole one."""
    is_path = source.startswith(("./", "../", "/", "~/"))
    return str((folder / Path(source).expanduser()).resolve()) if is_path else source
