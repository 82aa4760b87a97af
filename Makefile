.DEFAULT_GOAL := help
SHELL := bash

PYTHON := .venv/bin/python
# tests/conftest.py sets the same, so that a plain pytest does as `make test`.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest
# A worker needs about 1.5 GB.
WORKERS := -n auto --maxprocesses 4
LIGHTNING := lightning,pytorch-lightning
# The table shall be that of the file also where a test failed.
RECORD_SCALE = --record-scale=docs/scale.json; status=$$?; \
	$(PYTHON) scripts/scale_table.py && exit $$status
PLUGIN_TESTS := $(wildcard tests/callbacks tests/optimizers tests/strategies)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: set-up ## train the digits with SGD and with LateSAM, write runs/demo/report.html
	.venv/bin/lightning-plugins reproduce late-sam --scale smoke --output runs/demo

.PHONY: test
test: set-up ## run the fast tests
	$(PYTEST) $(WORKERS)

.PHONY: test-all
test-all: set-up ## run all tests that need no GPU, including the slow ones
	$(PYTEST) $(WORKERS) -m "not cuda"

.PHONY: coverage
coverage: set-up ## run the fast tests and report the lines that they do not reach
	@mkdir -p runs/coverage
	$(PYTEST) $(WORKERS) --cov --cov-report=term --cov-report=html:runs/coverage/html

.PHONY: test-gpu
test-gpu: set-up ## run the tests that need CUDA devices and report the skipped ones
	$(PYTEST) -m cuda -rs $(RECORD_SCALE)

.PHONY: scale
scale: set-up ## record which plugin runs under which strategy on CPUs, in docs/scale.md
	$(PYTEST) -m "scale and not cuda" $(RECORD_SCALE)

.PHONY: check
check: set-up ## ruff, mypy, import-linter, pip check, on the unpacked wheel
	scripts/check.sh

.PHONY: bench
bench: set-up ## run all benchmarks, other libraries in their own environments; writes runs/bench/table.md
	HF_HUB_OFFLINE=1 $(PYTHON) benchmarks/run_all.py

.PHONY: drop-in
drop-in: set-up ## try each plugin in projects of others, in environments of their own; writes docs/drop_in.md
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PYTHON) benchmarks/drop_in/run.py

.PHONY: docs
docs: ## build the documentation into docs/_build/html; warnings are errors
	@scripts/set_up.sh all,dev,docs
	$(PYTHON) -m sphinx -E -W --keep-going -b html docs docs/_build/html
	$(PYTHON) -m sphinx -W --keep-going -b doctest docs docs/_build/doctest

.PHONY: test-lightning-min
test-lightning-min: set-up ## test the plugins with the lowest supported Lightning
	scripts/test_with.sh min $(LIGHTNING) $(PLUGIN_TESTS)

.PHONY: test-lightning-latest
test-lightning-latest: set-up ## test the plugins with the newest released Lightning
	scripts/test_with.sh latest $(LIGHTNING) $(PLUGIN_TESTS)

.PHONY: test-min
test-min: set-up ## test with the lowest releases of all requirements, in an environment of its own (6 GB)
	scripts/test_versions.sh min $(PLUGIN_TESTS) tests/cli tests/metrics tests/recipes

.PHONY: test-latest
test-latest: set-up ## test with the newest releases of all requirements, in an environment of its own (7 GB)
	scripts/test_versions.sh latest $(PLUGIN_TESTS) tests/cli tests/metrics tests/recipes

.PHONY: set-up
set-up: ## prepare .venv and the assets; the other targets do this when necessary
	@scripts/set_up.sh all,dev
