# `make` lists the targets. Options: ARGS='...' (passed on), PYTHON=... (3.11 or later), VENV=... (default .venv).

VENV ?= .venv
ARGS ?=
FUZZ_S ?= 60
CHAOS_S ?= 60
MUTANTS ?= 20000
BIN := $(VENV)/bin
CODE := $(wildcard mcilib tests benchmarks examples)
export VENV
# The installed wheel is what counts; a path from the caller's shell must not put the checkout before it.
unexport PYTHONPATH PYTHONHOME
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup dev wheel install demo test test-all dead-controls check format-check lint types layers fmt api bench docs fuzz mutants crash chaos lock clean words

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv with all development packages, and the system packages where allowed
	@scripts/setup test

demo: ## record real (or, without a display, typed by itself) input, upload it, read it back
	@scripts/setup demo
	@scripts/wheel --install
	@$(BIN)/mcilib demo $(ARGS)

test: setup ## run the tests against the installed wheel (ARGS='-k spool')
	@scripts/test $(ARGS)

test-all: ## the tests on each Python found, 3.11 to 3.14
	@scripts/test-all $(ARGS)

check: setup ## what CI runs: format, lint, types, layers, wheel, tests
	@$(MAKE) format-check lint types layers wheel
	@$(MAKE) test

format-check: setup ## formatting, unchanged
	@echo "check: format"; $(BIN)/ruff format --check --quiet .

lint: setup ## ruff's rules
	@echo "check: lint"; $(BIN)/ruff check --quiet .

types: setup ## mypy, strict for mcilib
	@echo "check: types"; $(BIN)/mypy --no-error-summary $(CODE)

layers: install ## imports only point down
	@echo "check: layers"; $(BIN)/pytest -q --no-header tests/project/test_layers.py

fmt: setup ## format, and repair what lint can repair
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

wheel: setup ## build the wheel into dist/ (when a source changed)
	@scripts/wheel

install: setup ## install the wheel into .venv
	@scripts/wheel --install

dev: setup ## install the checkout for editing; the next `make test` puts the wheel back
	@rm -f $(VENV)/.mcilib-wheel
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --disable-pip-version-check -e .

api: install ## write tests/project/api.txt again (read the difference before you commit it)
	@$(BIN)/python tests/project/test_public_api.py

words: setup ## write the catalogue of what participants read again, then translate what is new in each .po
	@$(BIN)/python tests/language/test_catalogue.py

bench: install ## measure what the library costs
	@$(BIN)/python benchmarks/run.py $(ARGS)

docs: install ## run the documents' code and commands, follow their links
	@MCILIB_TEST_INSTALLED=1 $(BIN)/pytest tests/docs $(ARGS)

fuzz: install ## fuzz the decoder of batches (FUZZ_S=3600: longer; ARGS=build/fuzz/crash-...: one input again)
	@FUZZ_S=$(FUZZ_S) scripts/fuzz $(ARGS)

mutants: install ## 20,000 mutants of each test vector (MUTANTS=100000: more; ARGS='--seed 7 every_kind')
	@$(BIN)/python -P tests/fuzz/mutate.py --each $(MUTANTS) $(ARGS)

crash: install ## kill agents 200 times, and the spool after each of its file operations in full
	@MCILIB_CRASH=all $(BIN)/pytest tests/crash --timeout 600 -s $(ARGS)

chaos: install ## an agent, nginx, two receivers and faults of every kind (CHAOS_S=3600: longer)
	@$(BIN)/python -P tests/chaos/run.py $(CHAOS_S) $(ARGS)

dead-controls: ## ignore each option and control in turn: some test must notice (ARGS='--only hold --json')
	@scripts/dead-controls $(ARGS)

lock: setup ## write requirements/dev.txt again (ARGS=--upgrade for newer versions)
	@scripts/lock $(ARGS)

clean: ## remove everything that these targets made
	rm -rf .venv .venvs .setup.lock build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
