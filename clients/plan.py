"""What `up` is asked to do, and what that comes to together with the compose file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..adapters.errors import ConfigError
from ..adapters.transformers.settings import ModelSettings
from .compose_files import ComposeOptions, read_if_there
from .sources import BUNDLED, settings_of
from .webui.place import DEFAULT_WEBUI_PORT, WebUIPlace

if TYPE_CHECKING:
    from ..workflows.load import Compose

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """See the options of `model-compose up`.

    `common` says how models are loaded. `has_file` False leaves the folder's compose file alone; of a file, `workflow`
    serves only a part. `host`, `port` and `webui_port` None are the file's. `log` is where this process's output goes
    if nobody watches it.
    """

    models: tuple[str, ...] = ()
    common: ModelSettings = ModelSettings(name="", source="")
    compose: ComposeOptions = ComposeOptions()
    has_file: bool = True
    workflow: str | None = None
    host: str | None = None
    port: int | None = None
    api_key: str | None = None
    has_webui: bool = True
    webui_port: int | None = None
    log_level: str = "info"
    stop_with_stdin: bool = False
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is settled before anything is opened."""

    models: tuple[ModelSettings, ...]
    common: ModelSettings
    compose: Compose | None
    host: str
    port: int
    api_keys: tuple[str, ...]
    base_path: str
    webui: WebUIPlace | None

    @property
    def workflows(self) -> tuple[str, ...]:
        """The names that the workflows have as models."""
        if self.compose is None:
            return ()
        from ..workflows.graph import model_name

        return tuple(map(model_name, self.compose.file.workflows))


def plan_of(options: UpOptions) -> Plan:
    """What is to be served, and where; raises ConfigError."""
    compose = read_if_there(options.compose) if options.has_file else None
    if not options.has_file and options.compose != ComposeOptions():
        raise ConfigError("--no-file leaves no use for -f, -e and --env-file")
    if compose is None and options.workflow is not None:
        raise ConfigError(f"--workflow is for a compose file, and there is none in {Path.cwd()}")
    key = (options.api_key,) if options.api_key else ()
    if compose is None:
        return Plan(
            models=tuple(settings_of(options.models or [BUNDLED], options.common)),
            common=options.common,
            compose=None,
            host=options.host or DEFAULT_HOST,
            port=DEFAULT_PORT if options.port is None else options.port,
            api_keys=key,
            base_path="",
            webui=_webui(options, options.host or DEFAULT_HOST, DEFAULT_WEBUI_PORT),
        )
    controller = compose.file.controller
    webui = controller.webui
    host = options.host or controller.host
    return Plan(
        models=tuple(settings_of(options.models, options.common)),
        common=options.common,
        compose=compose if options.workflow is None else _only(compose, options.workflow),
        host=host,
        port=controller.port if options.port is None else options.port,
        api_keys=(*key, *controller.api_keys),
        base_path=controller.base_path,
        webui=None if webui is None else _webui(options, webui.host or host, webui.port),
    )


def _webui(options: UpOptions, host: str, port: int) -> WebUIPlace | None:
    """Where the Web UI is, if there is to be one; `host` and `port` are what the options leave open."""
    if not options.has_webui:
        return None
    return WebUIPlace(host, port if options.webui_port is None else options.webui_port)


def _only(compose: Compose, workflow: str) -> Compose:
    from ..workflows.needed import needed_by

    return needed_by(workflow, compose)
