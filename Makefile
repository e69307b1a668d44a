# make demo: install, then train and report on the embedded model.   make test: install, lint, test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/xtalk run --preset quick --out runs/demo

test: lint
	$(BIN)/python -m pytest
	$(BIN)/python -m audit.mutants
	$(BIN)/python -m audit.checker_size --check

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "xtalk needs Python 3.11 or newer; this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: nothing that follows can then choose another build of it.
$(VENV)/.installed: pyproject.toml packages/xtalk-check/pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable packages/xtalk-check
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info
