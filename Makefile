# Every target sets up what it needs: `make demo` and `make test` each work alone on a fresh clone.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# Two processes with a thread each: torch's own threads would fight over the cores. Tests of one file share what they set up.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## Build .venv from pyproject.toml and constraints.txt

demo: install  ## Prepare Scenes, score it with small models, re-rank, print recall, write a page to look at it
	$(BIN)/tiir demo --out $(OUT) --overwrite

test: install lint  ## Lint, types and every test
	$(PYTEST)

test-fast: install  ## The tests that take seconds
	$(PYTEST) -m "not slow"

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# clip-benchmark and open-clip-torch ask for torchvision, whose wheel breaks transformers beside a CPU torch: what is used needs none.
$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,peers]'
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps clip-benchmark open-clip-torch
	@touch $@

peers: $(VENV)/.peers  ## Install other retrieval tools and compare tiir with them
	$(PYTEST) -rs tests/peers

docs: install  ## Build the documentation as site/; a warning is an error
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

bench: $(VENV)/.peers  ## Run every benchmark (an hour and a half) and write benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py

.PHONY: help install demo test test-fast lint peers docs bench
