"""A model's settings: what is not honoured is refused by name."""

from __future__ import annotations

import pytest

from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.transformers.settings import ModelSettings, refuse_unhonoured


def test_a_setting_without_effect_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="compile"):
        refuse_unhonoured(ModelSettings(name="m", source="s", compile=True))
    refuse_unhonoured(ModelSettings(name="m", source="s", compile=False))
