"""A model's settings: what is not honoured is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.transformers.settings import ModelSettings, refuse_unhonoured


@pytest.mark.parametrize(
    "setting",
    [{"kv_cache_memory": 1_000_000_000}, {"max_batch_tokens": 512}, {"compile": False}],
)
def test_a_setting_without_effect_is_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        refuse_unhonoured(ModelSettings(name="m", source="s", **setting))
    refuse_unhonoured(ModelSettings(name="m", source="s"))
