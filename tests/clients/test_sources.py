"""What `--model` accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelcompose.adapters.bundled import MODEL_FOLDER
from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.clients.sources import settings_of

COMMON = ModelSettings(name="", source="", device="cpu", max_model_len=99)


def one(spelled: str) -> tuple[str, str]:
    (settings,) = settings_of([spelled], COMMON)
    return settings.name, settings.source


@pytest.mark.parametrize(
    ("spelled", "name", "source"),
    [
        ("org/name", "org/name", "org/name"),
        ("gpt2", "gpt2", "gpt2"),
        ("small=org/name-1.5_b", "small", "org/name-1.5_b"),
        ("bundled", "bundled", str(MODEL_FOLDER)),
        ("tiny=bundled", "tiny", str(MODEL_FOLDER)),
    ],
)
def test_a_model_is_called_what_it_is_or_what_one_likes(spelled: str, name: str, source: str) -> None:
    assert one(spelled) == (name, source)


def test_a_folder_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert one(str(folder)) == ("my-model", str(folder))
    assert one(".") == ("my-model", str(folder))
    assert one(f"other={folder}/") == ("other", str(folder))


def test_a_folder_with_an_equals_sign_is_still_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert one(str(folder)) == ("lr=0.1", str(folder))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    assert one("x=~/m") == ("x", str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("spelled", "words"),
    [
        ("./nowhere", "no folder './nowhere'"),
        ("/nowhere/at/all", "no folder '/nowhere/at/all'"),
        ("~/nowhere-at-all", "no folder"),
        ("a/b/c", "no folder 'a/b/c'"),
        ("=org/name", "half a model"),
        ("name=", "half a model"),
        ("org/na me", "neither a folder nor the id"),
    ],
)
def test_what_cannot_be_a_model_is_refused_at_once(spelled: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        one(spelled)


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two models are called 'same'"):
        settings_of(["same=a/b", "c/d", "same=e/f"], COMMON)


def test_every_model_gets_the_common_options() -> None:
    assert [(each.name, each.device, each.max_model_len) for each in settings_of(["a/b", "c=d/e"], COMMON)] == [
        ("a/b", "cpu", 99),
        ("c", "cpu", 99),
    ]
