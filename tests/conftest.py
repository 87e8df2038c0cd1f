"""Settings of every test."""

import os

import hypothesis

# One thread is the fastest for models this small, and threads that wait spinning take the cores from all else.
# It has to stand here, before torch is imported; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

pytest_plugins = ["served"]
collect_ignore = [] if os.environ.get("VLLM_ENVIRONMENT") else ["vllm"]

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")
