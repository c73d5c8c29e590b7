# make demo   the whole recipe on this machine, offline: photographs in, evaluation card out
# make test   every check that CI runs; make test-slow: what is left out of it
# Both build what they need in .venv first; they need Python 3.11 and git, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_EXPERIMENT_NAME ?= personalize
# uv looks where pip was told to look.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
PROFILE ?= local

.DEFAULT_GOAL := help
.PHONY: help setup data demo ui test test-slow check clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(VENV)/ready: conda.yaml requirements-dev.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed and was not found; say which with: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11"; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	sed -n 's/^      - //p' conda.yaml > $(VENV)/requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' $(VENV)/requirements.txt)"
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python -r $(VENV)/requirements.txt -r requirements-dev.txt
	@touch $@

setup: $(VENV)/ready data

data: $(VENV)/ready
	@$(VENV)/bin/dvc pull --quiet

demo: setup
	mlflow run . --env-manager local -P profile=$(PROFILE)

ui: $(VENV)/ready
	mlflow ui

check: $(VENV)/ready
	ruff check .
	ruff format --check .
	mypy
	lint-imports

# Two processes of one thread each, the front door's long story first.
test: setup check
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile -m slow

clean:
	rm -rf build output
