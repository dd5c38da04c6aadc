# The verbs of this repository. PYTHON names the interpreter of the environment to work in.
PYTHON ?= python
PATHS = echo_agent tools graphs finetune tests benchmarks examples docs

.PHONY: help install format lint type test slow vllm bench clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

install:  ## the package in place, with what its tests need
	$(PYTHON) -m pip install -e ".[dev]"

format:  ## rewrite the code in the house style
	$(PYTHON) -m ruff check --fix-only $(PATHS)
	$(PYTHON) -m ruff format $(PATHS)

lint:  ## style and common mistakes
	$(PYTHON) -m ruff check $(PATHS)
	$(PYTHON) -m ruff format --check $(PATHS)

type:  ## types, in a tree of linked files where the four folders are one package (build/types)
	@rm -rf build/types && mkdir -p build/types/echo_agent
	@ln -sfn "$(CURDIR)/pyproject.toml" build/types/pyproject.toml
	@cp -rs "$(CURDIR)/echo_agent/." build/types/echo_agent/
	@for entry in tools graphs finetune; do cp -rs "$(CURDIR)/$$entry" build/types/echo_agent/; done
	cd build/types && $(PYTHON) -m pyright -p . --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')" echo_agent

# What tests are compiled to is kept, whatever the environment says: to compile them takes longer than to import them.
test slow: export PYTHONDONTWRITEBYTECODE =

test:  ## the tests that need neither a GPU nor a network, within minutes; files go to two processes
	$(PYTHON) -m pytest -n 2 --dist loadfile

slow:  ## the tests that take longer
	$(PYTHON) -m pytest -m "slow and not gpu and not network"

vllm:  ## the engine over servers against a real `vllm serve` on this machine's CPU (build/vllm-venv, some minutes)
	$(PYTHON) -m tests.vllm_venv build/vllm-venv
	$(PYTHON) -m pytest -m vllm tests/engine/test_vllm_serve.py

bench:  ## what the docs say about speed: one JSON line each
	@for script in $(filter-out benchmarks/gate.py benchmarks/text_first.py benchmarks/ears.py benchmarks/hours.py benchmarks/listening_again%,$(wildcard benchmarks/*.py)); do $(PYTHON) "$$script" || exit 1; done

clean:  ## remove what the other verbs made
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
