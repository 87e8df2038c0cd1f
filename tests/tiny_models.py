"""Model folders with random weights, one for each architecture the tests load; each is written in well under a second.

They are real in form: config, generation config, safetensors, a tokenizer trained on the spot, a chat template in the
style of the family. What they say is noise, but always the same noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

CONTEXT_LENGTH = 256

CORPUS = """The quick brown fox jumps over the lazy dog. Once upon a time in a distant galaxy there was a model.
Explain quantum computing in simple terms. What is the weather in Paris today? It is sunny and 21 degrees.
User: Hello, how are you? Assistant: I am fine, thank you. You are a helpful assistant.
{"name": "value", "list": [1, 2]}
"""

CHATML = """{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
For each function call, return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

QWEN3 = CHATML.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

SMOLLM3 = """{%- set thinking = enable_thinking | default(true) %}<|im_start|>system
Reasoning Mode: {{ '/think' if thinking else '/no_think' }}
{%- if messages[0].role == 'system' %}
{{ messages[0].content }}
{%- endif %}
{%- if xml_tools %}
<tools>
{% for tool in xml_tools %}{{ tool | tojson }}
{% endfor %}</tools>
<tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call>
{%- endif %}<|im_end|>
{% for message in messages %}
{%- set role = 'user' if message.role == 'tool' else message.role %}
{%- if role in ['user', 'assistant'] %}<|im_start|>{{ role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if not thinking %}<think>

</think>
{% endif %}{% endif %}"""

LLAMA3 = """{{ bos_token }}
{%- for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if message.tool_calls %}{"name": "{{ message.tool_calls[0].function.name }}", "parameters": \
{{ message.tool_calls[0].function.arguments | tojson }}}
{%- else %}{{ message.content | trim }}{% endif %}<|eot_id|>
{%- endfor %}
{%- if tools %}<|start_header_id|>system<|end_header_id|>

Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|eot_id|>
{%- endif %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

ZEPHYR = """{% for message in messages %}
{%- if message.role == 'user' %}<|user|>
{{ message.content }}{{ eos_token }}
{% elif message.role == 'system' %}<|system|>
{{ message.content }}{{ eos_token }}
{% elif message.role == 'assistant' %}<|assistant|>
{{ message.content }}{{ eos_token }}
{% endif %}
{%- if loop.last and add_generation_prompt %}<|assistant|>
{% endif %}
{%- endfor %}"""


def byte_level_tokenizer(
    special: list[str],
    *,
    plain: tuple[str, ...] = (),
    chat_template: str | None = None,
    **names: Any,
) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer: emoji and Chinese take several tokens; `plain` are added tokens that are shown."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in special],
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    wrapped.chat_template = chat_template
    return wrapped


def _chatml(template: str) -> PreTrainedTokenizerBase:
    return byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        plain=("<think>", "</think>", "<tool_call>", "</tool_call>"),
        chat_template=template,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


def _gpt(**names: Any) -> PreTrainedTokenizerBase:
    return byte_level_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>", **names)


def _write(folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, ends: list[str]) -> None:
    """Weights are large beside a trained model's, so that what greedy decoding says varies from token to token."""
    import torch
    import transformers

    automatic = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        model = automatic.from_config(config)  # type: ignore[no-untyped-call]
    eos = [tokenizer.convert_tokens_to_ids(end) for end in ends]
    model.generation_config.eos_token_id = eos[0] if len(eos) == 1 else eos
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _decoder(tokenizer: PreTrainedTokenizerBase, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def smollm3(folder: Path) -> None:
    from transformers import SmolLM3Config

    tokenizer = _chatml(SMOLLM3)
    config = SmolLM3Config(**_decoder(tokenizer, num_hidden_layers=4, no_rope_layer_interval=4))
    _write(folder, config, tokenizer, [str(tokenizer.eos_token)])


def llama(folder: Path) -> None:
    from transformers import LlamaConfig

    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level_tokenizer(
        special, chat_template=LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    _write(folder, LlamaConfig(**_decoder(tokenizer)), tokenizer, ["<|end_of_text|>", "<|eot_id|>"])


def qwen2(folder: Path) -> None:
    from transformers import Qwen2Config

    tokenizer = _chatml(CHATML)
    config = Qwen2Config(**_decoder(tokenizer))
    _write(folder, config, tokenizer, ["<|im_end|>", "<|endoftext|>"])


def qwen3(folder: Path) -> None:
    from transformers import Qwen3Config

    tokenizer = _chatml(QWEN3)
    config = Qwen3Config(**_decoder(tokenizer, head_dim=8))
    _write(folder, config, tokenizer, ["<|im_end|>", "<|endoftext|>"])


def for_vllm(folder: Path) -> None:
    """Heads of a size that vLLM's attention on CPUs knows, and room for long answers."""
    from transformers import Qwen3Config

    tokenizer = _chatml(QWEN3)
    config = Qwen3Config(**_decoder(tokenizer, head_dim=64, max_position_embeddings=4096))
    _write(folder, config, tokenizer, ["<|im_end|>", "<|endoftext|>"])


def mistral(folder: Path) -> None:
    """Zephyr's chat format, and a sliding window that is shorter than most prompts."""
    from transformers import MistralConfig

    tokenizer = byte_level_tokenizer(
        ["<unk>", "<s>", "</s>"], chat_template=ZEPHYR, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    _write(folder, MistralConfig(**_decoder(tokenizer, sliding_window=16)), tokenizer, [str(tokenizer.eos_token)])


def gpt2(folder: Path) -> None:
    """DialoGPT's form: no chat template, turns end with the end-of-text token."""
    from transformers import GPT2Config

    tokenizer = _gpt()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT_LENGTH,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.4,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.task_specific_params = {"conversational": {"max_length": CONTEXT_LENGTH}}
    _write(folder, config, tokenizer, [str(tokenizer.eos_token)])


def gpt_neo(folder: Path) -> None:
    from transformers import GPTNeoConfig

    tokenizer = _gpt()
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=16,
        initializer_range=0.4,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    _write(folder, config, tokenizer, [str(tokenizer.eos_token)])


def codegen(folder: Path) -> None:
    from transformers import CodeGenConfig

    tokenizer = _gpt()
    config = CodeGenConfig(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT_LENGTH,
        n_ctx=CONTEXT_LENGTH,
        n_embd=32,
        n_layer=2,
        n_head=4,
        rotary_dim=4,
        initializer_range=0.4,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    _write(folder, config, tokenizer, [str(tokenizer.eos_token)])


def _encoder_decoder(vocab_size: int, pad: int, bos: int, eos: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": CONTEXT_LENGTH,
        "init_std": 0.1,
        "pad_token_id": pad,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "decoder_start_token_id": bos,
        "forced_eos_token_id": None,
        "tie_word_embeddings": False,
    }


def blenderbot(folder: Path) -> None:
    from transformers import BlenderbotConfig, BlenderbotTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    model = json.loads(byte_level_tokenizer(special).backend_tokenizer.to_str())["model"]
    tokenizer = BlenderbotTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    _write(folder, BlenderbotConfig(**_encoder_decoder(len(tokenizer), 1, 0, 2)), tokenizer, [str(tokenizer.eos_token)])


def blenderbot_small(folder: Path) -> None:
    """Its tokenizer is one of the few that exist only in Python; it lowers the case and knows no bytes."""
    from transformers import BlenderbotSmallConfig, BlenderbotSmallTokenizer

    letters = sorted(set(CORPUS.lower()) - set(" \n"))
    words = ["hello", "how", "are", "you", "the", "fine", "what"]
    merges: list[str] = []
    for word in words:
        for end in range(1, len(word)):
            last = word[end] + ("</w>" if end == len(word) - 1 else "")
            merges.append(f"{word[:end]} {last}")
    merges = list(dict.fromkeys(merges))
    pieces = [piece for word in words for piece in (f"{word[:end]}@@" for end in range(2, len(word)))]
    vocabulary = ["__null__", "__start__", "__end__", "__unk__", "__newln__", *letters, *(f"{c}@@" for c in letters)]
    vocabulary = list(dict.fromkeys([*vocabulary, *words, *pieces]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer = BlenderbotSmallTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    config = BlenderbotSmallConfig(**_encoder_decoder(len(tokenizer), 0, 1, 2))
    _write(folder, config, tokenizer, [str(tokenizer.eos_token)])


FAMILIES: dict[str, Callable[[Path], None]] = {
    "smollm3": smollm3,
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "mistral": mistral,
    "gpt2": gpt2,
    "gpt_neo": gpt_neo,
    "codegen": codegen,
    "blenderbot": blenderbot,
    "blenderbot_small": blenderbot_small,
}

TinyModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """The folder of the tiny model of a family (`FAMILIES`), written on first use."""
    root = tmp_path_factory.mktemp("tiny_models")

    def folder_of(family: str) -> Path:
        folder = root / family
        if not (folder / "config.json").exists():
            FAMILIES[family](folder)
        return folder

    return folder_of
