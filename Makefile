# Everything runs in .venv, which is made when it is missing and renewed when pyproject.toml or requirements.lock
# changed. Needed: make and a Python of 3.11 or newer with pip. Another Python: make lab PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# Whole paths: Python 3.13.0 writes the path it was called by into the programs that pip installs.
BIN := "$(CURDIR)/$(VENV)/bin"
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# It keeps all cores busy and runs the notebooks that measure most beside that, so it runs alone, and they run once.
BUSY := tests/package/test_busy.py
MEASURING := notebooks/04_view_materialized_projection.ipynb notebooks/08_do_you_need_cqrs.ipynb
NEWEST := .venv-newest
PYTEST = -m pytest -n auto
# loadscope keeps the cells of a notebook together and in order. A busy machine may need minutes for one cell.
NBVAL = -m pytest --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval.cfg --nbval-cell-timeout=600 \
    -n auto --dist loadscope
SECONDS ?= 60
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help lab learn test quick newest soak mutants lint format notebooks bench bench-full lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(STAMP) ## Install what is missing and open JupyterLab at the first notebook (ARGS=--no-browser)
	@$(PY) -m cqrs_lab.cli notebooks $(ARGS)

learn: $(STAMP) ## The same with a copy of your own, without outputs, in cqrs-lab-course (ARGS=FOLDER)
	@$(PY) -m cqrs_lab.cli notebooks --learner $(ARGS)

test: lint ## Install what is missing and run everything that CI runs
	$(PY) $(PYTEST) --ignore=$(BUSY) $(ARGS)
	$(PY) $(NBVAL) $(filter-out $(MEASURING),$(NOTEBOOKS))
	$(PY) -m pytest $(BUSY)
	@$(MAKE) --no-print-directory newest

quick: lint ## Check style and types and run the unit tests, in under a minute
	$(PY) $(PYTEST) tests/unit $(ARGS)

# The lock is what CI and `make lab` install; people who install with pip or conda get the newest versions instead.
newest: $(STAMP) ## Run agreement, package and first notebook again with the newest versions, if any is newer than the lock
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	if ! ( $(call resolve,$$fresh) ) 2>"$$fresh/error"; then \
	    tail -n 3 "$$fresh/error"; echo "the newest versions could not be asked for, so they were not tried"; \
	elif cmp -s "$$fresh/lock" requirements.lock; then \
	    echo "nothing is newer than requirements.lock, so its versions were not tried a second time"; \
	else \
	    echo "newer than requirements.lock:"; diff requirements.lock "$$fresh/lock" | grep '^>'; \
	    $(PYTHON) -m venv --clear $(NEWEST) && \
	    $(NEWEST)/bin/python -m pip install --disable-pip-version-check --no-input --quiet -e '.[all]' && \
	    $(NEWEST)/bin/cqrs-lab doctor && \
	    $(NEWEST)/bin/python $(PYTEST) tests/unit tests/package tests/properties/test_agreement.py --ignore=$(BUSY) && \
	    $(NEWEST)/bin/python $(NBVAL) notebooks/00_start_here.ipynb; \
	fi

soak: $(STAMP) ## Try random read models, then random faults of each kind, for SECONDS (60) each, and tell what went wrong
	$(PY) tests/properties/soak.py $(SECONDS) $(ARGS)
	for kind in interrupts kills forks appends; do \
	    echo "$$kind:" && $(PY) -W ignore tests/faults/soaking.py $$kind $(SECONDS) || exit 1; done

mutants: $(STAMP) ## Take each protection out on a copy and see a test fail, about an hour (ARGS="locks write/")
	$(PY) tests/mutants.py $(ARGS)

lint: $(STAMP) ## Check style, types and the import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Rewrite the code in the house style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(STAMP) ## Run all notebooks and keep what they print
	$(PY) notebooks/execute.py

bench: $(STAMP) ## Measure against bare DuckDB and peers, in under 5 minutes (ARGS="--json FILE")
	$(PY) -m benchmarks.run $(ARGS)

bench-full: $(STAMP) ## The same with a million orders, three times
	$(PY) -m benchmarks.run --full $(ARGS)

# uv resolves once for every Python and every system; pip can only do so for its own. Writes $(1)/lock.
resolve = $(PYTHON) -m venv "$(1)/uv" && "$(1)/uv/bin/python" -m pip install --quiet uv && \
    "$(1)/uv/bin/python" -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
        print(*project["build-system"]["requires"], sep="\n")' | \
    "$(1)/uv/bin/uv" pip compile pyproject.toml - --quiet --no-build --extra all --universal --python-version 3.11 \
        --fork-strategy fewest --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
        --output-file "$(1)/pins" && \
    { echo '\# Exact versions for every extra, Python 3.11 and newer, every system. Written by: make lock'; \
      cat "$(1)/pins"; } > "$(1)/lock"

lock: ## Renew requirements.lock with the newest versions that pyproject.toml allows
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call resolve,$$fresh) && \
	cp "$$fresh/lock" requirements.lock
	@echo "requirements.lock is renewed; run: make test"

clean: ## Remove .venv and all caches
	rm -rf $(VENV) $(NEWEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	        echo "cqrs_lab needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | tail -n 1)" >&2; \
	        echo "Name another one, for example: make $(or $(MAKECMDGOALS),lab) PYTHON=python3.12" >&2; exit 1; }; \
	    $(PYTHON) -m venv --clear $(VENV) || { \
	        echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	        exit 1; }; \
	fi
	@echo "Installing into $(VENV) (a minute or two, once) ..."
	@$(PIP) install --quiet -r requirements.lock
	@$(PIP) install --quiet --no-build-isolation --no-deps -e .
	@touch $@
