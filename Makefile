# Every target does its own set-up; a second call is quick.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
READY_DEV := $(VENV)/ready-dev

.DEFAULT_GOAL := help
.PHONY: help sync test check bench clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

sync: $(READY) ## Sync the agency example: load, build, check, publish.
	@$(BIN)/python examples/agency/sync.py

test: $(READY_DEV) ## Run the tests against a real Postgres.
	@$(BIN)/python -m pytest -n 3 $(ARGS)

check: $(READY_DEV) ## Lint and type-check Python and SQL.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint --processes 2 --disable-progress-bar sql dbt_project
	@$(BIN)/squawk --config=.squawk.toml sql/migrations/*.sql

bench: $(READY_DEV) ## Measure speed and memory beside plain psql; prints ratios.
	@$(BIN)/python -m tests.bench $(ARGS)

clean: ## Stop the embedded server; delete it, the virtual environment and caches.
	@if [ -x $(BIN)/syncline ]; then $(BIN)/syncline stop; fi
	@rm -rf $(VENV) .syncline dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 sync" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing Syncline into $(VENV) (once, about a minute)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $(READY)

$(READY_DEV): $(READY)
	@echo "installing the tools for tests and checks (once)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY_DEV)
