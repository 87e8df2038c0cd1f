"""Which model a component wants, in the adapter's words. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...adapters.bundled import MODEL_FOLDER
from ...adapters.errors import ConfigError
from ...adapters.transformers.settings import ModelSettings
from ...adapters.vllm.connection import Patience
from ...adapters.vllm.managed import ManagedSettings
from ...adapters.vllm.settings import UpstreamSettings
from ..schema import BundledModel, ChatModelComponent, HubModel, LocalModel, NamedModel, TextModelComponent

DEFAULT_CONCURRENCY = ModelSettings(name="", source="").max_concurrent_count

AnySettings = ModelSettings | UpstreamSettings | ManagedSettings


def settings_of(component: ChatModelComponent | TextModelComponent, folder: Path) -> AnySettings:
    """How to load the component's model, or where to reach it; relative paths are relative to `folder`."""
    if component.driver == "vllm":
        return _upstream(component) if component.base_url else _managed(component, folder)
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
        kv_cache_memory=component.kv_cache_memory,
        max_batch_tokens=component.max_batch_tokens,
        compile=component.compile,
        preload=component.preload,
        keep_alive=component.keep_alive,
        max_waiting_count=component.max_waiting_count,
    )


def names_of(component: ChatModelComponent | TextModelComponent, folder: Path) -> frozenset[str] | None:
    """What the models that a component brings are called here; None if its servers may have any."""
    match component.model:
        case NamedModel():
            return frozenset()
        case None:
            return None
        case HubModel(repository=name) if component.base_url:
            return frozenset({name, *component.aliases})
    return frozenset({_name_and_source(component, folder)[0], *component.aliases})


def _upstream(component: ChatModelComponent | TextModelComponent) -> UpstreamSettings:
    patience = Patience()
    if component.timeout is not None:
        patience = Patience(first_byte=component.timeout, idle=component.timeout)
    return UpstreamSettings(
        base_urls=component.base_url,
        model=component.model.repository if isinstance(component.model, HubModel) else None,
        aliases=component.aliases,
        api_key=component.api_key,
        patience=patience,
    )


def _managed(component: ChatModelComponent | TextModelComponent, folder: Path) -> ManagedSettings:
    manage = component.manage
    name, source = _name_and_source(component, folder)
    hub = component.model if isinstance(component.model, HubModel) else HubModel(repository=source)
    args = {
        "revision": hub.revision,
        "download-dir": hub.cache_dir,
        "dtype": component.precision if "precision" in component.model_fields_set else None,
        "max-model-len": component.max_model_len,
        "max-num-batched-tokens": component.max_batch_tokens,
        "trust-remote-code": component.trust_remote_code,
        **{name.lstrip("-").replace("_", "-"): value for name, value in manage.args.items()},
    }
    env = {
        **({"HF_TOKEN": hub.token} if hub.token else {}),
        **({"HF_HUB_OFFLINE": "1"} if hub.local_files_only else {}),
    }
    return ManagedSettings(
        source=source,
        upstream=msgspec.structs.replace(_upstream(component), model=name),
        folder=str(folder),
        python=manage.python,
        packages=manage.packages,
        args=args,
        env={**env, **manage.env},
        replicas=component.replicas,
        timeout=manage.timeout,
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
