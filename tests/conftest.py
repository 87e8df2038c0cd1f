"""Settings of every test."""

import os
import signal

import hypothesis

# One thread is the fastest for models this small, and threads that wait spinning take the cores from all else.
# It has to stand here, before torch is imported; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# A shell starts its background jobs deaf to Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["served"]
collect_ignore = [] if os.environ.get("VLLM_ENVIRONMENT") else ["vllm", "adapters/vllm/test_managed.py"]

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")
collect_ignore += [] if os.environ.get("CHROMIUM") else ["web"]
