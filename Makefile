# The verbs of this repository. PYTHON names the interpreter of the environment to work in.
PYTHON ?= python
PATHS = echo_agent tools graphs finetune tests benchmarks examples

.PHONY: help install format lint type test slow bench clean

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

type:  ## types, in a tree of links where the four folders are one package (build/types)
	@mkdir -p build/types/echo_agent
	@ln -sfn "$(CURDIR)/pyproject.toml" build/types/pyproject.toml
	@for entry in echo_agent/*; do ln -sfn "$(CURDIR)/$$entry" "build/types/$$entry"; done
	@for entry in tools graphs finetune; do ln -sfn "$(CURDIR)/$$entry" "build/types/echo_agent/$$entry"; done
	@find build/types -xtype l -delete
	cd build/types && $(PYTHON) -m pyright -p . --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')" echo_agent

test:  ## the tests that need neither a GPU nor a network, within minutes
	$(PYTHON) -m pytest

slow:  ## the tests that take longer
	$(PYTHON) -m pytest -m "slow and not gpu and not network"

bench:  ## what the claims about speed rest on: one JSON line each
	@for script in $(filter-out benchmarks/gate.py benchmarks/evidence.py,$(wildcard benchmarks/*.py)); do $(PYTHON) "$$script" || exit 1; done

clean:  ## remove what the other verbs made
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
