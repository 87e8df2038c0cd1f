"""Settings of every test."""

import hypothesis

pytest_plugins = ["served"]

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")
