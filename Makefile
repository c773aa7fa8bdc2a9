# Each target is one of README's or CONTRIBUTING's commands; PYTHON may name another interpreter of 3.11 or later.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup check test demo

setup:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e '.[dev]'

check:
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

test:
	$(BIN)/pytest

demo:
	$(BIN)/skd demo
