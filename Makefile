# make demo: install into .venv and show the whole loop on phantoms.
# make test: install with the tools of development, then ruff, mypy, import-linter and pytest.
# make help: the other targets.

VENV ?= .venv
OUT ?= demo
BENCH_OUT ?= results/step_cpu.json
PYTHON ?= python3
SHORT ?= --base-iterations 5 --iterations 5
LOWEST_TESTS ?= tests/imaging tests/evaluation tests/datasets tests/registry tests/methods tests/networks tests/weights \
  tests/transforms tests/inference tests/packaging tests/training/test_training_step.py tests/workflows/test_finetune.py
# A Python that was named is taken or refused; the default may be replaced by a newer one.
candidates := $(if $(filter file,$(origin PYTHON)),$(PYTHON) python3.13 python3.12 python3.11,$(PYTHON))
bin := $(VENV)/bin
pip := $(bin)/python -m pip --disable-pip-version-check --no-input
install := $(pip) install --quiet --progress-bar off

.PHONY: help demo test test-long test-services test-wheel test-lowest lint tables notebook site bench clean

help:
	@echo "make demo         install into $(VENV) and run: lnsegfm demo --out $(OUT)"
	@echo "make test         install and run the linters and the tests"
	@echo "make test-long    the tests that take minutes each"
	@echo "make test-services  jobs on a real SLURM and a real Ray, started here: as root, what is missing is skipped by name"
	@echo "make test-wheel   build the wheel, install it into a new environment from PyPI, run the demo there"
	@echo "make test-lowest  tests with the lowest versions that pyproject.toml allows, in $(VENV)-lowest"
	@echo "make lint         ruff, mypy and import-linter alone"
	@echo "make tables       write the documents' tables of methods and trainers, and their shares, from the code"
	@echo "make notebook     run the notebook of examples/ and keep what its cells show: minutes"
	@echo "make site         the documentation as a site, to build/site"
	@echo "make bench        time and memory of an optimizer step, to $(BENCH_OUT)"
	@echo "make clean        remove the environments and what tools left; results stay"

demo: $(VENV)/.installed
	$(bin)/lnsegfm demo --out $(OUT)

test: lint
	$(bin)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-long: $(VENV)/.installed-dev
	$(bin)/python -m pytest -m long

test-services: $(VENV)/.installed-dev
	$(install) -e '.[slurm,ray]'
	$(bin)/python -m pytest -m services

lint: $(VENV)/.installed-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

tables: $(VENV)/.installed
	$(bin)/python docs/tables.py

notebook: $(VENV)/.installed-dev
	$(bin)/python docs/notebook.py

site: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

# As a user installs it: in a new environment, with what PyPI has today, outside the tree. Minutes, several GB.
test-wheel: $(VENV)/.installed-dev
	rm -rf build/wheel
	$(bin)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir build/wheel .
	$(bin)/python -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check install --quiet build/wheel/*.whl
	mkdir build/wheel/empty
	cd build/wheel/empty && env -u PYTHONPATH ../venv/bin/lnsegfm demo --out demo $(SHORT)
	test -s build/wheel/empty/demo/run/report.html
	rm -rf build/wheel/venv

# Lowest versions of what pyproject.toml names, as uv resolves them; what these need is the newest that fits. With Python 3.11:
# for later ones some of these versions have no wheels.
test-lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest $(LOWEST_TESTS)

bench: $(VENV)/.installed
	$(bin)/python benchmarks/step.py --out $(BENCH_OUT)

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
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

$(VENV)-lowest/.installed: pyproject.toml $(VENV)/.installed-dev
	@echo "Installing the lowest versions into $(VENV)-lowest: minutes, several GB ..."
	@$(bin)/python -m venv $(VENV)-lowest
	@$(install) uv
	@$(bin)/uv pip compile --quiet --resolution lowest-direct --python $(bin)/python --extra test pyproject.toml --output-file $(VENV)-lowest/versions.txt
	@$(bin)/uv pip install --quiet --python $(VENV)-lowest/bin/python --requirement $(VENV)-lowest/versions.txt --editable . --no-deps
	@touch $@

$(bin)/python:
	@for python in $(candidates); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" -c 'import platform; print("Python", platform.python_version())') ..."; \
	    "$$python" -m venv $(VENV) && exit 0; rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with the venv module was found (tried: $(candidates)). Install one (Debian, Ubuntu: python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
