# Everything runs in environments made here under .cache/ and .tox/; needed beforehand: python3 (3.10 or newer).
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster lint bench bench-smoke soak clean

TOOLS := .cache/tools
BIN := $(TOOLS)/bin
COUNT ?= 10000

# Versions of Python that are installed but not on PATH, as pyenv keeps them; after what is there.
PYENVS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[0-9]*/bin)
empty :=
space := $(empty) $(empty)
export PATH := $(PATH)$(if $(PYENVS),:$(subst $(space),:,$(strip $(PYENVS))))
TOX := $(BIN)/tox

help:
	@echo "make demo           one run through Airflow and one through Prefect, on an embedded server (KEEP=1: it stays up)"
	@echo "make test           the checks that CI runs"
	@echo "make test-cluster   Airflow and Prefect on several workers, some of which are killed; stops and watches on whole Airflows"
	@echo "make lint           ruff, import rules, types"
	@echo "make bench          what calls, imports and waits cost, side by side with others (ARGS=\"--write waiting\", ARGS=--quick)"
	@echo "make bench-smoke    whether the benchmarks can be run"
	@echo "make soak           $(COUNT) random histories each of the hook, owners, checkpoints and shared waits, with faults (COUNT=…)"
	@echo "make clean          remove what all of these have made"

demo: $(TOOLS)/ready
	@$(if $(KEEP),DEMO_KEEP=1) $(BIN)/python -m orchestration_integrations.demo

# Stops of runs with checkpoints, and restarts of a watching triggerer, on whole Airflows: too long for each change.
LONG := tests/airflow/e2e/test_checkpoints.py tests/airflow/e2e/test_ended.py tests/airflow/e2e211/test_checkpoints.py
# Rounds of tests whose other rounds each change plays.
STANDALONE := tests/airflow/e2e/test_standalone.py
LONG_ROUNDS := "$(STANDALONE)::test_clearing_a_running_task_runs_anew_each_time[2]" \
  "$(STANDALONE)::test_a_time_limit_amid_the_deferral_cancels[dagrun_timeout-1]" \
  "$(STANDALONE)::test_a_time_limit_amid_the_deferral_cancels[deadline-1]" \
  "$(STANDALONE)::test_a_triggerer_that_ends_cancels_nothing_and_the_wait_goes_on[9]"
LONG_ON_PREFECT_37 := tests/prefect/test_checkpoints.py tests/prefect/test_automations.py

PARALLEL := $(TOX) run-parallel --parallel-no-spinner

# First what is light, three at a time since the longest of it mostly waits; then the frameworks, two at a time, both Prefects
# apart from each other; then whole Airflows, which need the machine for themselves most.
# The first failure stops no group.
test: $(TOOLS)/ready
	@failed=; \
	$(PARALLEL) -p 3 -e proofs,core-py311,core-py310,core-py312,core-py313,peers,page,types,lint,build || failed=1; \
	$(PARALLEL) -p 2 -e prefect39,airflow33,airflow32,airflow31,prefect37,airflow30,airflow211 || failed=1; \
	$(PARALLEL) -p 2 -e airflow33,airflow31,airflow211 -- tests/airflow/e2e tests/airflow/e2e211 $(LONG:%=--ignore=%) $(LONG_ROUNDS:%=--deselect %) || failed=1; \
	if [ -n "$$failed" ]; then echo "make test: some checks have failed, see above" >&2; exit 1; fi

# One after the other: each needs the machine for itself. Both start the servers that they need and end them.
test-cluster: $(TOOLS)/ready
	@failed=; \
	$(TOX) run -e cluster-airflow || failed=1; \
	$(TOX) run -e cluster-prefect || failed=1; \
	$(TOX) run -e airflow33,airflow211 -- $(LONG) || failed=1; \
	$(TOX) run -e airflow33 -- $(LONG_ROUNDS) || failed=1; \
	$(TOX) run -e prefect37 -- $(LONG_ON_PREFECT_37) || failed=1; \
	if [ -n "$$failed" ]; then echo "make test-cluster: a check has failed, see above" >&2; exit 1; fi

lint: $(TOOLS)/ready
	@$(TOX) run -e lint,types

# What is compared needs the machine for itself, so nothing of this runs in parallel.
bench bench-smoke: $(TOOLS)/ready
	@$(TOX) run --notest -e bench-airflow33,bench-airflow211,bench-prefect
	@$(TOX) run -e $@ $(if $(ARGS),-- $(ARGS))

soak: $(TOOLS)/ready
	@$(BIN)/python -m tests.simulation.soak --count $(COUNT)
	@$(BIN)/python -m tests.simulation.soak --owners --count $(COUNT)
	@$(BIN)/python -m tests.simulation.soak --checkpoints --count $(COUNT)
	@$(BIN)/python -m tests.simulation.soak --shared --count $(COUNT)

clean:
	rm -rf .cache .tox dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(TOOLS)/ready: pyproject.toml Makefile
	@set -e; \
	for python in python3 python3.13 python3.12 python3.11 python3.10 none; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break; \
	done; \
	if [ $$python = none ]; then echo "python3 of 3.10 or newer is needed" >&2; exit 1; fi; \
	echo "preparing $(TOOLS) with $$($$python --version)"; \
	if [ ! -x $(BIN)/uv ]; then \
	  rm -rf $(TOOLS); \
	  $$python -m venv $(TOOLS) 2>/dev/null || { \
	    $$python -m venv --without-pip $(TOOLS) && $$python -m pip --python $(BIN)/python install --quiet pip; }; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'; \
	fi; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python 'tox>=4.25,<5' 'tox-uv>=1.25,<2' -e '.[server,cli]'; \
	touch $@
