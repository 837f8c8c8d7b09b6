# Every target sets up what it needs. `make` alone prints this list.
# PYTHON may name another Python 3.11 or 3.12:  make lab PYTHON=/usr/bin/python3.12

PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) kaapana_nb/cli/bootstrap.py

.PHONY: help setup lab tour test check lint bench lock
.DEFAULT_GOAL := help

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## set up .venv, system programs, helm, the sample batch and the base image
	@$(SETUP) --prepare

lab:  ## start a JupyterLab dev session on the sample batch
	@$(SETUP) --if-changed
	@$(BIN)/kaapana-nb lab

tour:  ## the whole job without a browser: notebook -> image -> verified results
	@$(SETUP) --if-changed
	@$(BIN)/kaapana-nb tour

test:  ## set up everything, then lint and test
	@$(SETUP) --tests --prepare
	@$(MAKE) --no-print-directory check

check: lint  ## lint and test what is set up
	@$(BIN)/pytest

lint:  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench:  ## benchmarks of what users wait on
	@$(SETUP) --if-changed
	@for file in $(wildcard tests/bench/bench_*.py); do echo "$$file"; $(BIN)/python "$$file" || exit 1; done

lock:  ## write requirements.lock from pyproject.toml (needs uv)
	@printf 'hatchling>=1.27\neditables>=0.5\n' | uv pip compile -q --universal --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --python-version 3.11 --extra dev pyproject.toml - -o requirements.lock
