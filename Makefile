# `make demo` and `make test` are all a new machine needs: each makes the environment first, if it is not there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

.PHONY: help demo test test-long test-pandas coverage check types docs pictures package bench clean

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

# All of the first environment, but with the other major version of pandas. anndata before 0.13 asks to be allowed to
# write the text of pandas 3. The checks of scikit-learn take long, and find nothing else here.
OTHER := build/pandas
FRAMES := $(addprefix tests/test_,$(addsuffix .py,tables conditions files bad_inputs round_trips interactions rows readme validation estimators))
OTHER_PANDAS := import pandas; print("pandas>=3,<4" if pandas.__version__.startswith("2.") else "pandas>=2.1,<3")

$(OTHER)/installed: $(VENV)/installed
	rm -rf $(OTHER)
	$(RUN) -m venv $(OTHER)
	$(RUN) -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > $(OTHER)/first.pth
	mv $(OTHER)/first.pth "$$($(OTHER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --ignore-installed --no-deps "$$($(RUN) -c '$(OTHER_PANDAS)')" pytz tzdata
	@touch $@

test-pandas: $(OTHER)/installed ## run the tests of data frames with the other major version of pandas
	@$(OTHER)/bin/python -c 'import pandas; print("pandas", pandas.__version__)'
	ANNDATA_ALLOW_WRITE_NULLABLE_STRINGS=1 OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest -n 2 --dist worksteal -k 'not checks_of_scikit_learn' $(FRAMES)

coverage: $(VENV)/released ## run all tests, and print the lines that none of them runs
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal --cov=elbowroom --cov-report=term-missing:skip-covered

$(VENV)/checked: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[check]'
	@touch $@

check: types ## lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/checked
	$(BIN)/mypy

$(VENV)/documented: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(VENV)/documented ## build the documentation into build/docs
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs
	@echo "open build/docs/index.html"

pictures: $(VENV)/installed ## run the tutorials, and write the pictures and numbers of the docs (2 minutes)
	for page in digits missing clicks cells custom; do $(RUN) docs/tutorials/$$page.py --out docs/tutorials/images || exit 1; done

$(VENV)/released: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[release]'
	@touch $@

package: $(VENV)/released ## build wheel and sdist into build/dist, check them, try the wheel in an environment of its own
	rm -rf build/dist build/fresh
	$(RUN) -m build --outdir build/dist
	$(RUN) -m twine check --strict build/dist/*
	$(RUN) -m venv build/fresh
	build/fresh/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt build/dist/*.whl
	build/fresh/bin/elbowroom --help > build/help.txt
	build/fresh/bin/python -I -c "$$FIVE_LINES"

define FIVE_LINES
from sklearn.datasets import load_wine
from elbowroom import TableVAE
X = load_wine().data
model = TableVAE(n_latents=3, epochs=20, random_state=0).fit(X)
print("the wheel works: latents", model.transform(X).shape, "at", round(model.score(X), 2), "nats")
endef
export FIVE_LINES

bench: $(VENV)/installed ## measure training speed beside a bare loop and the peers (about 10 minutes)
	$(RUN) benchmarks/speed.py

clean: ## remove the environment and all that was built
	rm -rf $(VENV) build
