# Everything a person or CI does here: make run, make test, …  (GNU make)

PORT ?=
MODEL ?=
CONFIG ?=
PYTHON ?=
VENV ?= .venv
ARGS ?=
# A file's tests stay together, for their servers, and those in a browser stay last.
PYTEST = "$(BIN)/python" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
SOURCES := pyproject.toml constraints.txt scripts/venv

.DEFAULT_GOAL := help
.PHONY: help install run test test-all lint format types contracts bench conformance docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

$(RUNTIME): $(SOURCES)
	@PYTHON="$(PYTHON)" bash scripts/venv "$(VENV)"
	@touch "$@"

$(DEV): $(SOURCES)
	@PYTHON="$(PYTHON)" bash scripts/venv "$(VENV)" dev
	@touch "$@" "$(RUNTIME)"

install: $(RUNTIME) ## make .venv with what the server needs

run: $(RUNTIME) ## start the server: PORT=5042 MODEL=bundled CONFIG=config.json
	@exec "$(BIN)/whisper-api" serve $(if $(CONFIG),--config "$(CONFIG)") $(if $(PORT),--port "$(PORT)") $(if $(MODEL),--model "$(MODEL)") $(ARGS)

test: $(DEV) ## fast tests
	@$(PYTEST) $(ARGS)

test-all: $(DEV) ## slow tests too
	@$(PYTEST) -m "not gpu" $(ARGS)

lint: $(DEV) ## style of the code
	@"$(BIN)/ruff" check . && "$(BIN)/ruff" format --check .

format: $(DEV) ## mend the style of the code
	@"$(BIN)/ruff" check --fix . && "$(BIN)/ruff" format .

types: $(DEV) ## mypy, strict
	@"$(BIN)/mypy"

contracts: $(DEV) ## imports point down only
	@"$(BIN)/lint-imports"

bench: $(DEV) ## speed beside faster-whisper, in one run
	@"$(BIN)/python" benchmarks/run.py $(ARGS)

conformance: $(DEV) ## OpenAI's contract, row by row: writes docs/conformance.md
	@"$(BIN)/python" scripts/conformance.py

docs: $(DEV) ## write the generated parts of docs/ again
	@"$(BIN)/python" scripts/docs.py

clean: ## remove .venv and caches
	@rm -rf "$(VENV)" .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist
