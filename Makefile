# `make demo` and `make test` are all a new machine needs: each makes the environment first, if it is not there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

.PHONY: help demo test test-long check docs bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Elbowroom needs Python >= 3.11, but $(PYTHON) is older. Run: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(VENV)/installed ## train on the bundled digits, save the model, write report.html
	$(BIN)/elbowroom demo --out build/demo

test: $(VENV)/installed ## run all tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

test-long: $(VENV)/installed ## run the tests of many seeds and many kills (up to 40 minutes)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal -m long

$(VENV)/checked: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[check]'
	@touch $@

check: $(VENV)/checked ## lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/documented: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(VENV)/documented ## build the documentation into build/docs
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs
	@echo "open build/docs/index.html"

bench: $(VENV)/installed ## measure training speed beside a bare loop and the peers (about 10 minutes)
	$(RUN) benchmarks/speed.py

clean: ## remove the environment and all that was built
	rm -rf $(VENV) build
