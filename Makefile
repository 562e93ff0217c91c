# Everything runs in .venv, made here from constraints.txt. PYTHON chooses the interpreter (3.11, 3.12 or 3.13).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all test-browser test-package check docs bench clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	# metrics are compared with it; the pandas and rich that it asks for are older than those it works with
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps \
		panoptica ruamel.yaml connected-components-3d
	# kernels are compiled once here, not once by every process of the tests
	$(BIN)/python tests/numeric/exercise.py plain >/dev/null
	touch $@

demo: .venv/ready
	$(BIN)/cellflow demo

# Several processes, each test file whole in one of them: trainings of one file are shared by its tests.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

# Minutes. What takes long and is tested in the small as well (marked slow) is left to test-all.
test: .venv/ready
	$(PYTEST) -m "not slow and not browser and not package"

test-all: .venv/ready
	$(PYTEST) -m "not browser and not package"

# Pages, opened in a real browser: Debian's chromium, or the one that CHROMIUM names.
CHROMIUM ?= $(shell command -v chromium chromium-browser google-chrome | head -n 1)
test-browser: .venv/ready
	$(if $(CHROMIUM),,apt-get update -qq && apt-get install -qq --yes chromium >/dev/null)
	CHROMIUM=$(CHROMIUM) $(PYTEST) -m browser tests/browser

.venv/package-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group package
	touch $@

# The Dockerfile, linted, and its steps outside of Docker: the wheel in an empty environment does the whole job.
test-package: .venv/package-ready
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m package tests/package

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

# The site, in build/docs. A warning is an error, and so is a page that would fetch something.
FETCHES := <(script|img|iframe|source)[^>]*src="(https?:)?//|<link[^>]*href="(https?:)?//|@import|url\(["']?(https?:)?//
docs: .venv/docs-ready
	$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs
	! grep -rEno --include='*.html' --include='*.css' '$(subst ','\'',$(FETCHES))' build/docs

bench: .venv/ready
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
