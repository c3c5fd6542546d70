# What people and CI run; needs Python 3.11 or later, make and git, and nothing else.
#   PYTHON=python3.12 make test   another Python    ONCE=1 make demo   ends by itself
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
UV ?= $(BIN)/uv
ONCE ?=
FRESH ?=
REPLAY ?= --start 2013-03-01 --every 7d --candidate gradient_boosting --trials 1
DEBIAN := chromium chromium-driver postgresql

.DEFAULT_GOAL := help
.PHONY: help demo replay test debian check lock clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: $(READY)  ## the running example in Airflow and MLflow, until Ctrl-C (ONCE=1 ends by itself, FRESH=1 begins anew)
	@exec $(BIN)/steward demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(filter-out 0,$(FRESH)),--fresh)

replay: $(READY) data/flights.parquet  ## a year of flights under several retraining policies, with a report at the end
	@$(BIN)/steward replay flight_delay $(REPLAY)

test: $(READY) debian  ## the whole test suite, in as many processes as there are cores
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Of Debian: a browser for Airflow's pages, a second database for the ledger. Elsewhere the tests that need them are skipped.
debian:
	@missing=""; for name in $(DEBIAN); do dpkg -s $$name >/dev/null 2>&1 || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	   echo "Installing Debian packages that some tests need:$$missing"; \
	   { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
	   >/dev/null 2>&1 && exit 0; fi; \
	echo "Not installed:$$missing. The tests that need them are skipped; as root: apt-get install$$missing"

check: $(READY)  ## format, lint, types and layers, in seconds
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

lock: $(READY)  ## write requirements.txt anew from pyproject.toml: exact versions with hashes
	@test -x $(UV) || $(BIN)/python -m pip install --quiet uv
	@{ printf '# Exact versions with hashes, made from pyproject.toml by `make lock`.\n'; \
	   grep -v '^#' requirements.txt; } > .venv/requirements.txt
	@$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	   --no-emit-index-url --no-header --no-annotate --quiet --output-file .venv/requirements.txt
	@{ printf '# Exact versions with hashes, made from pyproject.toml by `make lock`.\n'; \
	   grep -v '^#' .venv/requirements.txt; } > requirements.txt

clean:  ## remove the virtual environment and caches; data, models and .steward stay
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build

# A quarter of the flights, the same ones every time.
data/flights.parquet: | .venv/.flights
	@$(BIN)/steward example flights --share 0.25

.venv/.flights: requirements-flights.txt $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation \
	   -r requirements-flights.txt
	@touch .venv/.flights

# Installed once, and again when what is needed has changed.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Steward needs Python 3.11 or later; set PYTHON")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what requirements.txt names; this takes a few minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
