"""Downloads from a hub on loopback, through huggingface_hub itself."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, FakeHub, hub_environment
from tiny_models import TinyModel

from modelcompose.adapters.base import ModelState
from modelcompose.adapters.errors import ConfigError, ModelUnavailable
from modelcompose.adapters.transformers import hub as hub_module
from modelcompose.adapters.transformers.hub import ModelFiles
from modelcompose.adapters.transformers.load import load
from modelcompose.adapters.transformers.settings import ModelSettings

REPOSITORY = "org/tiny"


@pytest.fixture
def hub(tiny_model: TinyModel) -> Iterator[FakeHub]:
    with FakeHub() as hub, hub_environment(hub.url):
        hub.repositories[REPOSITORY] = tiny_model("llama")
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    return ModelSettings(name="tiny", source=REPOSITORY, cache_dir=str(tmp_path / "cache"), device="cpu")


def changed(settings: ModelSettings, **changes: Any) -> ModelSettings:
    import msgspec

    return msgspec.structs.replace(settings, **changes)


def fetch(settings: ModelSettings) -> list[Path]:
    return ModelFiles(settings, lambda state: None).weights()


def test_model_is_downloaded_with_progress_and_loaded(hub: FakeHub, settings: ModelSettings) -> None:
    states: list[ModelState] = []
    loaded = load(settings, states.append)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    downloading = [state for state in states if state.detail.startswith("downloading org/tiny")]
    assert downloading[0].progress == 0.0
    assert downloading[-1].progress == pytest.approx(1.0)
    assert "of 0.00 GB" in downloading[-1].detail


def test_progress_is_told_by_the_thread_that_loads(
    hub: FakeHub, settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "REPORT_EVERY", 0.01)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub.delay = 0.005
    told: list[tuple[int, float | None]] = []
    ModelFiles(settings, lambda state: told.append((threading.get_ident(), state.progress))).weights()
    assert {thread for thread, _ in told} == {threading.get_ident()}
    progress = [share for _, share in told if share is not None]
    assert progress == sorted(progress)
    assert any(0 < share < 1 for share in progress)


def test_only_what_is_needed_is_downloaded(hub: FakeHub, settings: ModelSettings, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub.repositories[REPOSITORY], tmp_path / "more"))
    for name in ("pytorch_model.bin", "model.gguf", "original/params.json", "onnx/model.onnx", "code.py", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    hub.repositories[REPOSITORY] = folder
    load(settings, lambda state: None)
    assert sorted(hub.downloads) == [
        *("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]


def test_wrong_kind_of_model_is_refused_before_its_weights_are_downloaded(
    hub: FakeHub, settings: ModelSettings, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(hub.repositories[REPOSITORY], tmp_path / "bert"))
    config = (folder / "config.json").read_text().replace("LlamaForCausalLM", "LlamaModel")
    (folder / "config.json").write_text(config)
    hub.repositories[REPOSITORY] = folder
    with pytest.raises(ConfigError, match="does not generate text"):
        load(settings, lambda state: None)
    assert "model.safetensors" not in hub.downloads


def test_cached_model_is_loaded_without_a_hub(hub: FakeHub, settings: ModelSettings) -> None:
    fetch(settings)
    hub.refusals[REPOSITORY] = "broken"
    assert fetch(changed(settings, local_files_only=True))[0].parent.name == COMMIT


def test_token_is_sent(hub: FakeHub, settings: ModelSettings) -> None:
    fetch(changed(settings, token="hf_secret"))
    assert set(hub.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        ("missing", ConfigError, "there is no model org/tiny on the hub, nor a folder .* misspelled .* HF_TOKEN"),
        ("gated", ConfigError, "org/tiny is gated: ask for access .* HF_TOKEN"),
        ("private", ConfigError, "org/tiny"),
        ("broken", ModelUnavailable, "the hub cannot be reached and org/tiny is not in the cache"),
    ],
)
def test_refusal_of_the_hub_is_explained(
    hub: FakeHub, settings: ModelSettings, refusal: str, error: type[Exception], words: str
) -> None:
    hub.refusals[REPOSITORY] = refusal
    with pytest.raises(error, match=words) as caught:
        fetch(settings)
    assert "http://" not in str(caught.value)


def test_revision_that_is_not_there_is_named(hub: FakeHub, settings: ModelSettings) -> None:
    with pytest.raises(ConfigError, match="org/tiny has no revision 'v9'"):
        fetch(changed(settings, revision="v9"))


def test_no_network_and_nothing_cached_is_said(hub: FakeHub, settings: ModelSettings) -> None:
    with hub_environment("http://127.0.0.1:9"), pytest.raises(ModelUnavailable, match="the hub cannot be reached"):
        fetch(settings)


def test_downloads_switched_off_and_nothing_cached_is_said(hub: FakeHub, settings: ModelSettings) -> None:
    with pytest.raises(ModelUnavailable, match="downloads are switched off"):
        fetch(changed(settings, local_files_only=True))


def test_connection_that_breaks_off_is_said(
    hub: FakeHub, settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    ModelFiles(settings, lambda state: None)
    hub.cut_after = 1000
    with pytest.raises(ModelUnavailable, match="the download of org/tiny broke off"):
        fetch(settings)
    hub.cut_after = None
    assert fetch(settings)[0].stat().st_size == (hub.repositories[REPOSITORY] / "model.safetensors").stat().st_size


def test_full_disk_is_said_before_the_download(
    hub: FakeHub, settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ModelUnavailable, match=r"needs 0\.0 GB of disk .* set cache_dir"):
        fetch(settings)


def test_disk_that_fills_up_is_said(settings: ModelSettings) -> None:
    with pytest.raises(ModelUnavailable, match="the disk is full"), hub_module.explained(settings):
        raise OSError(28, "No space left on device")
