# make demo: install into .venv and show the whole loop on phantoms.
# make test: install with the tools of development, then ruff, mypy, import-linter and pytest.

VENV ?= .venv
OUT ?= demo
BENCH_OUT ?= results/step_cpu.json
PYTHON ?= python3
# A Python that was named is taken or refused; the default may be replaced by a newer one.
candidates := $(if $(filter file,$(origin PYTHON)),$(PYTHON) python3.13 python3.12 python3.11,$(PYTHON))
bin := $(VENV)/bin
pip := $(bin)/python -m pip --disable-pip-version-check --no-input
install := $(pip) install --quiet --progress-bar off

.PHONY: help demo test test-long lint tables bench clean

help:
	@echo "make demo       install into $(VENV) and run: lnsegfm demo --out $(OUT)"
	@echo "make test       install and run the linters and the tests"
	@echo "make test-long  the tests that take minutes each"
	@echo "make lint       ruff, mypy and import-linter alone"
	@echo "make tables     write the documents' tables of methods and trainers, and their shares, from the code"
	@echo "make bench      time and memory of an optimizer step, to $(BENCH_OUT)"
	@echo "make clean      remove $(VENV) and what tools left; results stay"

demo: $(VENV)/.installed
	$(bin)/lnsegfm demo --out $(OUT)

test: lint
	$(bin)/python -m pytest

test-long: $(VENV)/.installed-dev
	$(bin)/python -m pytest -m long

lint: $(VENV)/.installed-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

tables: $(VENV)/.installed
	$(bin)/python docs/tables.py

bench: $(VENV)/.installed
	$(bin)/python benchmarks/step.py --out $(BENCH_OUT)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps come last: an installation that was interrupted is repeated, a finished one is not.
$(VENV)/.installed: pyproject.toml | $(bin)/python
	@echo "Installing lnsegfm and what it needs into $(VENV): minutes, several GB ..."
	@$(install) --editable .
	@touch $@
	@echo "Installed."

$(VENV)/.installed-dev: pyproject.toml | $(bin)/python
	@echo "Installing lnsegfm, what it needs and the tools of development into $(VENV): minutes, several GB ..."
	@$(install) --editable ".[dev]"
	@touch $(VENV)/.installed $@
	@echo "Installed."

$(bin)/python:
	@for python in $(candidates); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" -c 'import platform; print("Python", platform.python_version())') ..."; \
	    "$$python" -m venv $(VENV) && exit 0; rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with the venv module was found (tried: $(candidates)). Install one (Debian, Ubuntu: python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
