"""Hub or folder -> model and tokenizer, on the right device and in the right precision."""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ..base import ModelState, Sampling
from ..errors import ConfigError, ModelUnavailable
from .detokenize import Vocabulary
from .hub import ModelFiles, Report, explained, local_folder
from .limits import context_length
from .placement import (
    choose_device,
    choose_dtype,
    on_one,
    place,
    read_headers,
    size_in_memory,
    stored_dtype,
    turn_to_load,
)
from .response_formats import ResponseFormat, response_format
from .settings import ModelSettings
from .tasks import check_task

logger = logging.getLogger(__name__)

# Tokens that end a turn wherever a chat template writes them; generation configs of base models do not name them.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|end_of_turn|>", "<｜end▁of▁sentence｜>")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run; lengths in tokens. `defaults` are what its own generation config says of sampling."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    context_length: int
    eos_token_ids: frozenset[int]
    defaults: Sampling
    is_encoder_decoder: bool

    @cached_property
    def vocab_size(self) -> int:
        """The number of logits; may be larger than the tokenizer's vocabulary."""
        return _vocab_size(self.model)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What each token stands for."""
        return Vocabulary(self.tokenizer)

    @cached_property
    def response_format(self) -> ResponseFormat | None:
        """How its chat answers mark thinking and tool calls; None if they are plain text."""
        return response_format(self.tokenizer, self.vocabulary)


def load(settings: ModelSettings, report: Report) -> LoadedModel:
    """Load a model; `report` is told how far it is. Raises ConfigError or ModelUnavailable with what to do about it."""
    transformers_logging.disable_progress_bar()
    report(ModelState("loading", f"looking at {settings.source}"))
    device = choose_device(settings.device)
    files = ModelFiles(settings, report)
    with _in_plain_words(settings):
        check_task(settings, files.config())
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=settings.trust_remote_code)
        length = context_length(config, settings)
        model = _model(settings, files, config, device, report)
        tokenizer = _tokenizer(settings, files.folder)
    loaded = LoadedModel(
        name=settings.name,
        model=model,
        tokenizer=tokenizer,
        device=model.device,
        dtype=model.dtype,
        context_length=length,
        eos_token_ids=_eos_token_ids(model, tokenizer),
        defaults=_defaults(model.generation_config, is_encoder_decoder=bool(config.is_encoder_decoder)),
        is_encoder_decoder=bool(config.is_encoder_decoder),
    )
    kind, dtype = type(model).__name__, str(model.dtype)[6:]
    logger.info("%s on %s as %s, context of %d tokens", kind, model.device, dtype, length)
    return loaded


def _model(
    settings: ModelSettings, files: ModelFiles, config: PreTrainedConfig, device: torch.device, report: Report
) -> PreTrainedModel:
    quantization = _quantization(settings)
    weights = files.weights()
    headers = read_headers(weights)
    stored = stored_dtype(headers) or _dtype_of(config) or torch.float32
    dtype = choose_dtype(settings.precision, stored, device)
    with turn_to_load(report):
        where = on_one(device)
        if quantization is None:
            needed = size_in_memory(headers, dtype) or sum(path.stat().st_size for path in weights)
            where = place(settings, needed, device, dtype)
        automatic = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        report(ModelState("loading", f"loading the weights of {settings.source}", 0.0))
        with _weights_progress(settings, report):
            model, loading = automatic.from_pretrained(  # type: ignore[misc]
                files.folder,
                config=config,
                dtype=dtype,
                **where,
                quantization_config=quantization,
                trust_remote_code=settings.trust_remote_code,
                use_safetensors=bool(headers),
                output_loading_info=True,
            )
    if missing := sorted(loading["missing_keys"]):
        some = ", ".join(missing[:3])
        raise ConfigError(f"{settings.source} lacks {len(missing)} weights of a {type(model).__name__} ({some} ...)")
    for adapter in settings.peft_adapters:
        _add_adapter(model, adapter, settings, report)
    model.eval()
    assert isinstance(model, PreTrainedModel)
    return model


def _dtype_of(config: PreTrainedConfig) -> torch.dtype | None:
    dtype = getattr(config.get_text_config(), "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _quantization(settings: ModelSettings) -> Any:
    """The quantization asked for, as transformers takes it."""
    if settings.quantization is None:
        return None
    from transformers.quantizers.auto import AutoQuantizationConfig

    spec = dict(settings.quantization)
    if "quant_method" not in spec and not {"load_in_4bit", "load_in_8bit"} & set(spec):
        raise ConfigError(
            "quantization needs a quant_method (such as bitsandbytes, torchao, hqq or quanto) or load_in_4bit: true"
        )
    try:
        return AutoQuantizationConfig.from_dict(spec)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"quantization: {error}") from error


def _add_adapter(model: PreTrainedModel, adapter: str, settings: ModelSettings, report: Report) -> None:
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("peft_adapters need the peft package: pip install peft")
    report(ModelState("loading", f"adding the adapter {adapter}"))
    folder = local_folder(adapter)
    with explained(settings):
        model.load_adapter(
            str(folder) if folder is not None else adapter,
            adapter_name=Path(adapter).name.replace(".", "_"),
            adapter_kwargs={"token": settings.token, "cache_dir": settings.cache_dir},
        )


def _tokenizer(settings: ModelSettings, folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{settings.source} has no tokenizer that can be loaded (tokenizer.json and tokenizer_config.json): "
            f"{_first_lines(error)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or len(tokenizer) == 0:
        raise ConfigError(f"{settings.source} has no tokenizer (tokenizer.json and tokenizer_config.json)")
    return tokenizer


def _eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    given = model.generation_config.eos_token_id
    ids: list[int | None] = [*given] if isinstance(given, list) else [given]
    template = str(tokenizer.chat_template)
    vocabulary = tokenizer.get_added_vocab()
    ends = [vocabulary[end] for end in TURN_ENDS if end in vocabulary and end in template]
    size = _vocab_size(model)
    # A tokenizer may have tokens that its model was never given.
    return frozenset(token for token in [*ids, tokenizer.eos_token_id, *ends] if token is not None and token < size)


def _vocab_size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _defaults(generation: GenerationConfig, *, is_encoder_decoder: bool) -> Sampling:
    # max_length counts the prompt where prompt and answer share a context; as a default it would only cut answers.
    longest = generation.max_length if is_encoder_decoder else None
    return Sampling(
        max_tokens=generation.max_new_tokens or longest,
        temperature=0.0 if generation.do_sample is False else generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        min_p=generation.min_p,
        repetition_penalty=generation.repetition_penalty,
    )


@contextmanager
def _weights_progress(settings: ModelSettings, report: Report) -> Iterator[None]:
    """Tell `report` of every tenth of the weights that transformers has loaded."""

    def watched(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _counted(factory(*args, **kwargs), len(args[0]) if args else 0, settings, report)

    before = transformers_logging.set_tqdm_hook(watched)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def _counted(items: Any, total: int, settings: ModelSettings, report: Report) -> Iterator[Any]:
    step = max(1, total // 10)
    for done, item in enumerate(items):
        if done % step == 0 and total:
            report(ModelState("loading", f"loading the weights of {settings.source}", done / total))
        yield item


@contextmanager
def _in_plain_words(settings: ModelSettings) -> Iterator[None]:
    """What transformers and torch raise while they load comes out of this block as an error for the user."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelUnavailable(
            f"there was not enough memory to load {settings.source}; close other programs or choose a smaller model"
        ) from error
    except ImportError as error:
        raise ConfigError(f"{settings.source} needs a package that is not installed: {_first_lines(error)}") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"the weights of {settings.source} are broken, or hold program code, which is not run; look for a copy of "
            "the model with safetensors files"
        ) from error
    except (ValueError, KeyError, OSError, RuntimeError, TypeError, AttributeError) as error:
        logger.debug("loading %s failed", settings.source, exc_info=True)
        raise ConfigError(f"{settings.source} cannot be loaded: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:600] or type(error).__name__
