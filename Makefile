# What a clone needs is python3 with venv, and git. Everything else goes into .venv; a second call is quick.
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE # tests start hundreds of servers: each would compile Norn anew
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help demo test check unit integration faults bench lock clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/runtime: requirements/runtime.txt pyproject.toml
	@bash tools/prerequisites "$(PYTHON)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@echo "installing what Norn runs on (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/dev: requirements/dev.txt .venv/runtime
	@echo "installing what the tests need (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

demo: .venv/runtime ## all the set-up, then: deploy three versions of a sample app, the third one broken, and roll back
	@$(BIN)/norn demo $(ARGS)

test: .venv/dev check ## all the set-up, then all the tests
	@$(BIN)/python -m pytest -n 5 --dist loadgroup --no-loadscope-reorder -m "not long" $(ARGS)

check: .venv/dev ## linters, types, imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --config pyproject.toml | tail -n 8

unit: .venv/dev ## the tests that need no server
	@$(BIN)/python -m pytest tests/unit $(ARGS)

integration: .venv/dev ## the tests with real PostgreSQL and real processes
	@$(BIN)/python -m pytest -n 3 --dist loadgroup tests/integration $(ARGS)

faults: .venv/dev ## kill the server at each step, at more moments than `make test` does; more of the model and of the verdict's oracle
	@$(BIN)/python -m pytest -n 3 --dist loadgroup tests/faults tests/cluster/test_faults.py tests/integration/test_verdict_oracle.py $(ARGS)

bench: .venv/dev ## measure; the numbers go into benchmarks/README.md
	@for each in $$(grep -l '^def main' benchmarks/*.py); do $(BIN)/python -m "benchmarks.$$(basename $$each .py)" $(ARGS) || exit 1; done

lock: .venv/dev ## resolve the dependencies anew
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	@$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 pyproject.toml --group dev -c requirements/runtime.txt -o requirements/dev.txt
	@$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 --group build -c requirements/dev.txt -o requirements/build.txt

clean: ## remove what was installed here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
