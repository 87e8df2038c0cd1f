"""Engines start without PyTorch's compiler, and it is there for whoever wants it later."""

import os
import subprocess
import sys

from tiny_models import TinyModel

PROGRAM = """
import sys
from modelcompose.adapters.transformers.imports import without_compiler

with without_compiler():
    from modelcompose.adapters.transformers.load import load
    from modelcompose.adapters.transformers.settings import ModelSettings
    from modelcompose.adapters.transformers.engine import Engine

    loaded = load(ModelSettings(name="tiny", source=sys.argv[1], device="cpu"), lambda state: None)
    Engine(loaded, ModelSettings(name="tiny", source="", kv_cache_memory=1 << 20))
import torch
from transformers.masking_utils import TransformGetItemToIndex

prompt = torch.tensor([[5, 6, 7]])
loaded.model.generate(prompt, max_new_tokens=4, do_sample=False)
assert not {"torch._dynamo", "torch.distributed.tensor"} & set(sys.modules)
assert torch.distributed.is_available()

with TransformGetItemToIndex() as mode:
    assert type(mode).__module__ == "torch._dynamo._trace_wrapped_higher_order_op"
assert torch._dynamo.config.cache_size_limit > 0
"""


def test_a_model_is_loaded_and_runs_without_the_compiler_which_is_there_later(tiny_model: TinyModel) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PROGRAM, str(tiny_model("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
