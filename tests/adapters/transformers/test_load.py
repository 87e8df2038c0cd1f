"""Loading from folders: choices of device and precision, limits, and errors that say what to do."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import answer, engine_of, loaded, text_request
from long_models import LongModel
from tiny_models import CONTEXT_LENGTH, TinyModel
from transformers import AutoModelForCausalLM, LlamaConfig

from modelcompose.adapters.base import ModelState
from modelcompose.adapters.errors import ConfigError, ModelUnavailable
from modelcompose.adapters.transformers import placement
from modelcompose.adapters.transformers.computer import computer_for
from modelcompose.adapters.transformers.in_turns import InTurns
from modelcompose.adapters.transformers.limits import own_context_length
from modelcompose.adapters.transformers.load import LoadedModel, load
from modelcompose.adapters.transformers.placement import choose_device, choose_dtype, gpus_for, turn_to_load
from modelcompose.adapters.transformers.settings import ModelSettings


def load_quietly(source: Path | str, **settings: Any) -> LoadedModel:
    return load(ModelSettings(name="tiny", source=str(source), **{"device": "cpu", **settings}), lambda state: None)


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny Llama, to be broken."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def only_gguf(folder: Path) -> None:
    no_weights(folder)
    (folder / "model.gguf").write_bytes(b"GGUF")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def wrong_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")


def missing_shard(folder: Path) -> None:
    no_weights(folder)
    weight_map = {"lm_head.weight": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def half_the_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layers.1" not in k}, folder / "model.safetensors", {"format": "pt"})


def other_shapes(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=128)


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def is_bert(folder: Path) -> None:
    edit(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])


def is_embedding(folder: Path) -> None:
    edit(folder / "config.json", architectures=["LlamaModel"])


def is_vision(folder: Path) -> None:
    edit(folder / "config.json", model_type="vit", architectures=["ViTForImageClassification"])


def is_diffusion(folder: Path) -> None:
    (folder / "config.json").rename(folder / "model_index.json")


def is_adapter(folder: Path) -> None:
    no_config(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def has_code(folder: Path) -> None:
    edit(folder / "config.json", model_type="homemade", auto_map={"AutoConfig": "code.Config"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_config, "has no config.json"),
        (bad_config, "config.json cannot be read"),
        (no_weights, "holds no weights"),
        (only_gguf, "GGUF files are for llama.cpp"),
        (cut_weights, "model.safetensors is cut short .* download the model again"),
        (wrong_weights, "no safetensors file or a broken one"),
        (missing_shard, "lacks model-00001-of-00002.safetensors, model-00002-of-00002.safetensors of its 2 files"),
        (half_the_weights, "lacks 9 weights of a LlamaForCausalLM"),
        (other_shapes, "cannot be loaded: .*"),
        (no_tokenizer, "has no tokenizer"),
        (is_bert, "is a BertForMaskedLM, which does not generate text; models that generate text"),
        (is_embedding, "is a LlamaModel, which does not generate text"),
        (is_vision, "is a ViTForImageClassification, which is not served"),
        (is_diffusion, "is a diffusion pipeline"),
        (is_adapter, "is a PEFT adapter, not a model; serve org/base with peft_adapters"),
        (has_code, "brings its own program code .* trust_remote_code: true"),
    ],
)
def test_damaged_folder_is_refused_with_the_reason(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(folder)
    with pytest.raises(ConfigError, match=words) as caught:
        load_quietly(folder)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("./nowhere", "there is no folder ./nowhere; give the folder of a model, or a hub id"),
        ("/no/such/model", "there is no folder"),
        ("a/b/c", "there is no folder a/b/c"),
        (__file__, "is a file"),
    ],
)
def test_source_that_is_no_folder_is_refused(source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_quietly(source)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "gpu"}, "there is no device 'gpu'; device is one of auto"),
        ({"device": "meta"}, "is not served"),
        ({"precision": "int3"}, "there is no precision 'int3'; it is one of auto, float32"),
        ({"max_model_len": CONTEXT_LENGTH + 1}, "max_model_len is 257, but .* takes 256 tokens at most"),
        ({"max_model_len": 0}, "must be 1 or more"),
        ({"peft_adapters": ("x",)}, "pip install peft"),
        ({"quantization": {"bits": 4}}, "needs a quant_method"),
        ({"quantization": {"quant_method": "magic"}}, "quantization: .*magic"),
        ({"quantization": {"load_in_4bit": True}}, "needs a package that is not installed: .*bitsandbytes"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(tiny_model: TinyModel, settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_quietly(tiny_model("llama"), **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"no CUDA GPU here .* or set device: auto"):
        choose_device("cuda:0")


def test_too_little_memory_is_said_with_numbers_before_loading(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    with pytest.raises(ModelUnavailable, match=r"needs 0\.0 GB of memory as float32 and 0\.0 GB are free on cpu"):
        load_quietly(tiny_model("llama"), precision="float32")


@pytest.mark.parametrize(
    ("stored", "native", "chosen"),
    [
        (torch.float32, True, torch.float32),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float16, True, torch.bfloat16),
        (torch.bfloat16, False, torch.float32),
        (torch.float16, False, torch.float32),
        (torch.float64, True, torch.float32),
        (torch.float8_e4m3fn, False, torch.float32),
    ],
)
def test_precision_on_a_cpu_is_what_it_computes_well(
    stored: torch.dtype, native: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "has_native_bfloat16", lambda: native)
    assert choose_dtype("auto", stored, torch.device("cpu")) == chosen
    assert choose_dtype("float16", stored, torch.device("cpu")) == torch.float16


def test_precision_asked_for_is_loaded(tiny_model: TinyModel) -> None:
    assert load_quietly(tiny_model("llama"), precision="bfloat16").dtype == torch.bfloat16


def test_context_length_is_lowered_by_max_model_len(tiny_model: TinyModel) -> None:
    assert load_quietly(tiny_model("llama"), max_model_len=64).context_length == 64


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "sliding_window": 128}, 4096),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "max_position_embeddings": 4096}, 8192),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
    ],
)
def test_context_length_is_read_from_the_configuration(config: dict[str, Any], length: int) -> None:
    assert own_context_length(LlamaConfig(**config)) == length


def test_end_of_sequence_is_everything_that_ends_a_turn(folder: Path) -> None:
    tokenizer = load_quietly(folder).tokenizer
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.convert_tokens_to_ids("<|end_of_text|>")})
    )
    loaded = load_quietly(folder)
    assert {tokenizer.convert_ids_to_tokens(token) for token in loaded.eos_token_ids} == {
        "<|end_of_text|>",  # generation config
        "<|eot_id|>",  # tokenizer, and the chat template's end of a turn
    }


def test_end_of_sequence_that_the_model_cannot_say_is_none(folder: Path) -> None:
    size = load_quietly(folder).vocab_size
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [size, size + 5]}))
    assert max(load_quietly(folder).eos_token_ids) < size


def test_generation_config_gives_the_defaults_of_sampling(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9, "top_k": 20, "do_sample": true}')
    defaults = load_quietly(folder).defaults
    assert (defaults.temperature, defaults.top_p, defaults.top_k, defaults.max_tokens) == (0.6, 0.9, 20, None)


def test_weights_in_a_bin_file_are_loaded(folder: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    before = load_quietly(folder).model.state_dict()
    no_weights(folder)
    after = load_quietly(folder).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_program_code_in_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "trapped",)

    torch.save({"model.norm.weight": Trap()}, folder / "pytorch_model.bin")
    no_weights(folder)
    with pytest.raises(ConfigError, match="program code, which is not run"):
        load_quietly(folder)
    assert not (tmp_path / "trapped").exists()


def test_bundled_names_the_model_that_comes_with_the_program() -> None:
    from modelcompose.adapters.bundled import MODEL_FOLDER
    from modelcompose.adapters.transformers.hub import local_folder

    assert local_folder("bundled") == MODEL_FOLDER


def test_bundled_model_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("modelcompose.adapters.transformers.hub.MODEL_FOLDER", tmp_path / "gone")
    with pytest.raises(ConfigError, match="the bundled model is missing from this installation"):
        load_quietly("bundled")


HOMEMADE = """
from transformers import LlamaConfig, LlamaForCausalLM

class HomemadeConfig(LlamaConfig):
    model_type = "homemade"

class HomemadeForCausalLM(LlamaForCausalLM):
    config_class = HomemadeConfig
"""


def test_code_of_a_model_runs_when_it_is_trusted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    has_code(folder)
    names = {"AutoConfig": "homemade.HomemadeConfig", "AutoModelForCausalLM": "homemade.HomemadeForCausalLM"}
    edit(folder / "config.json", auto_map=names, architectures=["HomemadeForCausalLM"])
    (folder / "homemade.py").write_text(HOMEMADE)
    assert type(load_quietly(folder, trust_remote_code=True).model).__name__ == "HomemadeForCausalLM"


def test_states_are_told_in_order(tiny_model: TinyModel) -> None:
    states: list[ModelState] = []
    load(ModelSettings(name="tiny", source=str(tiny_model("llama"))), states.append)
    assert states[0].detail.startswith("looking at")
    assert states[-1].detail.startswith("loading the weights")


def test_two_models_do_not_count_on_the_same_memory() -> None:
    told: list[ModelState] = []
    entered = threading.Event()

    def load_another() -> None:
        with turn_to_load(told.append):
            entered.set()

    other = threading.Thread(target=load_another)
    with turn_to_load(told.append):
        other.start()
        while not told:
            time.sleep(0.001)
        assert not entered.is_set()
    other.join(10)
    assert entered.is_set()
    assert [state.detail for state in told] == ["waiting until another model is loaded"]


@pytest.mark.parametrize(
    ("needed", "free", "chosen"),
    [
        (10, [12], [0]),
        (10, [12, 80], [0]),
        (10, [8, 9, 12, 11], [2]),
        (10, [9], []),
        (10, [9, 2, 8], [0, 2]),
        (20, [9, 9, 9, 9], [0, 1, 2]),
        (29, [9, 9, 9, 9], []),
    ],
)
def test_the_fewest_gpus_that_have_room_are_taken(needed: int, free: list[int], chosen: list[int]) -> None:
    assert gpus_for(needed, free) == chosen


async def test_a_model_that_lies_on_several_devices_answers_the_same(long_model: LongModel, tmp_path: Path) -> None:
    folder = long_model("llama")
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "disk"}
    spread = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        device_map=places | {"model.rotary_emb": "cpu", "lm_head": "cpu"},
        offload_folder=str(tmp_path),
    )
    model = dataclasses.replace(loaded(folder), model=spread)
    assert isinstance(computer_for(model, ModelSettings(name="m", source="")), InTurns)
    engine = engine_of(model)
    both = [await answer(each, text_request(max_tokens=20)) for each in (engine, engine_of(loaded(folder)))]
    assert both[0].choices[0].text == both[1].choices[0].text
