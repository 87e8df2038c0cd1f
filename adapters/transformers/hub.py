"""A model's files: in a folder of the user's, or from the Hugging Face hub into its cache, with progress."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ..base import ModelState
from ..bundled import MODEL_FOLDER
from ..errors import ComposeError, ConfigError, ModelUnavailable
from .settings import ModelSettings

Report = Callable[[ModelState], None]

REPOSITORY_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "tokenizer*", "*.tiktoken"]
CODE_FILES = ["*.py"]
# Other copies of the weights and other programs' files.
NEVER = ["*/*.json", "*/*.txt", "*/*.model", "*.gguf", "*.onnx", "*.h5", "*.msgpack"]
GIGABYTE = 1e9
REPORT_EVERY = 0.25  # seconds


class ModelFiles:
    """The files of one model. `folder` has the small ones from the beginning; `weights` brings the large ones."""

    def __init__(self, settings: ModelSettings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._commit: str | None = None
        self._sizes: dict[str, int] = {}
        local = local_folder(settings.source)
        self.folder = local if local is not None else self._fetch_small()
        self._check_folder()

    @property
    def names(self) -> set[str]:
        """The names of all files at the top of the model's folder, fetched or not."""
        return set(self._sizes) or {path.name for path in self.folder.iterdir()}

    def config(self) -> dict[str, Any]:
        """The model's config.json."""
        return self._json("config.json")

    def weights(self) -> list[Path]:
        """The files with the weights, fetched now if they have to be; raises ConfigError where one is missing."""
        names = self._weight_names()
        if self._commit is not None:
            self._fetch_weights(names)
        missing = [name for name in names if not (self.folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"{self._settings.source} lacks {_some(missing)} of its {len(names)} files of weights; "
                "download the model again"
            )
        return [self.folder / name for name in names]

    def _weight_names(self) -> list[str]:
        names = self.names
        for kind, whole in (("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")):
            if whole in names:
                return [whole]
            if f"{whole}.index.json" in names:
                return sorted(set(self._json(f"{whole}.index.json")["weight_map"].values()))
            if (
                kind == "safetensors"
                and (single := [n for n in names if n.endswith(".safetensors")])
                and len(single) == 1
            ):
                return single
        raise ConfigError(f"{self._settings.source} holds no weights that can be loaded{_what_else(names)}")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ConfigError(f"{self._settings.source}: {name} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{self._settings.source}: {name} is not a JSON object")
        return content

    def _check_folder(self) -> None:
        source = self._settings.source
        if not self.folder.is_dir():
            raise ConfigError(f"the {source} model is missing from this installation ({self.folder}); install it again")
        names = self.names
        if "config.json" in names:
            return
        if "adapter_config.json" in names:
            base = self._json("adapter_config.json").get("base_model_name_or_path", "its base model")
            raise ConfigError(f"{source} is a PEFT adapter, not a model; serve {base} with peft_adapters: [{source}]")
        if "model_index.json" in names:
            raise ConfigError(f"{source} is a diffusion pipeline; models that generate text are served here")
        raise ConfigError(f"{source} is no model in transformers' format: it has no config.json{_what_else(names)}")

    # From the hub

    def _fetch_small(self) -> Path:
        self._report(ModelState("loading", f"looking for {self._settings.source} on the hub"))
        patterns = SMALL_FILES + (CODE_FILES if self._settings.trust_remote_code else [])
        folder = self._snapshot(self._settings.revision, patterns)
        self._commit = folder.name
        self._sizes = self._listing(folder)
        return folder

    def _fetch_weights(self, names: list[str]) -> None:
        sizes = {name: self._sizes.get(name, 0) for name in names}
        missing = sum(size for name, size in sizes.items() if not (self.folder / name).is_file())
        self._check_disk(missing)
        if missing:
            self._watched(names, sum(sizes.values()))
        else:
            self._snapshot(self._commit, names)

    def _watched(self, names: list[str], total: int) -> None:
        """Download in other threads and report from this one, for a report may not be called from several."""
        bars: list[_Silent] = []

        class Bar(_Silent):
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more)
                bars.append(self)

        with ThreadPoolExecutor(max_workers=1) as pool:
            download = pool.submit(self._snapshot, self._commit, names, Bar)
            self._downloaded(0, total)
            while not wait([download], timeout=REPORT_EVERY).done:
                self._downloaded(max((bar.n for bar in list(bars) if bar.unit == "B"), default=0), total)
            download.result()
        self._downloaded(total, total)

    def _downloaded(self, done: float, total: int) -> None:
        detail = f"downloading {self._settings.source}: {done / GIGABYTE:.2f} of {total / GIGABYTE:.2f} GB"
        self._report(ModelState("loading", detail, min(done / total, 1.0) if total else None))

    def _snapshot(self, revision: str | None, patterns: list[str], progress: type[Any] | None = None) -> Path:
        from huggingface_hub import snapshot_download

        settings = self._settings
        with explained(settings):
            return Path(
                snapshot_download(
                    settings.source,
                    revision=revision,
                    token=settings.token,
                    cache_dir=settings.cache_dir,
                    local_files_only=settings.local_files_only,
                    allow_patterns=patterns,
                    ignore_patterns=NEVER,
                    tqdm_class=progress or _Silent,
                    max_workers=4,
                )
            )

    def _listing(self, folder: Path) -> dict[str, int]:
        """Name and size in bytes of every file at the top of the repository; without a list, of those in the cache."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = get_cached_repo_tree(self._settings.source, revision=folder.name, cache_dir=self._settings.cache_dir)
        except CachedRepoTreeNotFoundError:
            return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        return {file.path: file.size for file in tree if "/" not in file.path}

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ModelUnavailable(
                f"{self._settings.source} needs {needed / GIGABYTE:.1f} GB of disk and {free / GIGABYTE:.1f} GB are "
                "free; make room, or set cache_dir to a folder on another disk"
            )


def local_folder(source: str) -> Path | None:
    """The folder that `source` names, or None if it is a hub id; raises ConfigError if it can be neither."""
    if source == "bundled":
        return MODEL_FOLDER
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ConfigError(f"{source} is a file; give the folder of a model in transformers' format, or a hub id")
    if source.startswith((".", "/", "~", "\\")) or not REPOSITORY_ID.fullmatch(source):
        raise ConfigError(
            f"there is no folder {source}; give the folder of a model, or a hub id such as Qwen/Qwen3-0.6B"
        )
    return None


@contextmanager
def explained(settings: ModelSettings) -> Iterator[None]:
    """Errors of the hub and of the network come out of this block in words that say what to do."""
    import httpx2
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise _explanation(error, settings) from error


def _explanation(error: Exception, settings: ModelSettings) -> ComposeError:
    import httpx2
    from huggingface_hub import errors

    name = settings.source
    match error:
        case errors.GatedRepoError():
            return ConfigError(
                f"{name} is gated: ask for access on its page on the hub, then give a token of that account "
                "(token: in the settings, or the environment variable HF_TOKEN)"
            )
        case errors.RevisionNotFoundError():
            return ConfigError(f"{name} has no revision {settings.revision!r}; give a branch, a tag or a commit of it")
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            return ConfigError(
                f"there is no model {name} on the hub, nor a folder of that name here. If it is not misspelled it is "
                "private: give a token that may read it (token: in the settings, or the environment variable HF_TOKEN)"
            )
        case errors.EntryNotFoundError():
            return ModelUnavailable(_not_cached(settings))
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return ConfigError(f"the hub refuses {name} ({error.response.status_code}): give a token that may read it")
        case errors.HfHubHTTPError():
            return ModelUnavailable(f"the hub answered {error.response.status_code} for {name}; try again later")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ModelUnavailable(
                f"the disk is full, {name} does not fit; make room, or set cache_dir to a folder on another disk"
            )
        case OSError() if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return ConfigError(f"the cache folder cannot be written ({error}); set cache_dir to one that can")
        case httpx2.HTTPError() | OSError():
            return ModelUnavailable(
                f"the download of {name} broke off ({_reason(error)}); what was loaded is kept, try again"
            )
    return ModelUnavailable(f"{name} cannot be downloaded: {error}")


def _not_cached(settings: ModelSettings) -> str:
    from huggingface_hub import constants

    if settings.local_files_only or constants.HF_HUB_OFFLINE:
        return (
            f"{settings.source} is not in the cache, or not all of it, and downloads are switched off "
            "(local_files_only or HF_HUB_OFFLINE); allow them once, or give a folder"
        )
    return (
        f"the hub cannot be reached and {settings.source} is not in the cache, or not all of it; "
        "check the network and proxy, or give a folder"
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _what_else(names: set[str]) -> str:
    """A hint at what a folder holds instead."""
    if any(name.endswith(".gguf") for name in names):
        return "; GGUF files are for llama.cpp, look for the repository that they were made from"
    if any(name.endswith((".h5", ".msgpack", ".onnx")) for name in names):
        return "; it has weights for other frameworks only"
    return f"; it holds {_some(sorted(names))}" if names else "; it is empty"


class _Silent:
    """The little of a tqdm bar that huggingface_hub asks for, showing nothing."""

    def __init__(self, *args: Any, total: float | None = None, unit: str = "it", **more: Any) -> None:
        self.n = 0.0
        self.total = total
        self.unit = unit
        self.format_dict: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0

    def close(self) -> None:
        pass

    def refresh(self, *args: Any, **more: Any) -> None:
        pass

    set_description = set_description_str = set_postfix = set_postfix_str = reset = clear = refresh
