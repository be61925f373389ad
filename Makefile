# `make demo` and `make test` set everything up by themselves: they need Python 3.11+, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Processes that share the tests.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(STAMP)  ## simulate a genome, patch it, embed it, write the report into ./demo
	$(BIN)/hyena-glt demo --force -o demo

test: $(STAMP)  ## the tests, without those marked slow
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --slow

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## the benchmark tables and their JSON
	$(BIN)/python benchmarks/genome_to_patches.py
	$(BIN)/python benchmarks/network_speed.py --only forward million
	$(BIN)/python benchmarks/long_conv.py --lengths 32768

clean:  ## remove the environment and what was built
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
