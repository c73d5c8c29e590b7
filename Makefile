# make demo   the whole recipe on this machine, offline: photographs in, evaluation card out
# make test   every check that CI runs; make test-slow: what is left out of it
# make test-kills   recipe, tracking server and endpoint killed 60 times at any moment, 10 minutes; KILLS=500 by night
# make rehearse   profile gpu at SDXL's own size with random weights, on the CPU: half an hour, 20 GB, 60 GB of disk; not part of make test
# make lock   resolve conda.yaml anew into requirements.lock and requirements-torch.lock
# The first two build what they need in .venv first; they need Python 3.11 or 3.12 and git, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_EXPERIMENT_NAME ?= personalize
# uv looks where pip was told to look.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
UV := $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python
PROFILE ?= local

.DEFAULT_GOAL := help
.PHONY: help setup data demo ui test test-slow test-kills rehearse check lock clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(VENV)/ready: requirements.lock requirements-torch.lock requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo "Python 3.11 or 3.12 is needed and was not found; say which with: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11"; exit 2; }
	"$(PYTHON)" personalize/environment.py $(VENV)
	$(UV) -r requirements-dev.txt
	$(UV) --no-deps --no-build-isolation -e .
	@touch $@

# torch as the index has it needs NVIDIA's libraries, other builds of it do not: they stand in a file of their own.
lock: $(VENV)/ready
	mkdir -p build && cat requirements.lock requirements-torch.lock > build/all.lock
	{ sed -n 's/^      - //p' conda.yaml; echo pip; } | env -u UV_FIND_LINKS -u UV_TORCH_BACKEND $(VENV)/bin/uv pip compile --quiet \
	  --universal --python-version 3.11 --generate-hashes --no-header -o build/all.lock - > /dev/null
	awk '/^[a-z]/ { of_torch = /^(torch==|triton==|nvidia-|cuda-)/ } of_torch' build/all.lock > requirements-torch.lock
	awk '/^[a-z]/ { of_torch = /^(torch==|triton==|nvidia-|cuda-)/ } !of_torch' build/all.lock > requirements.lock

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

# Three processes of one thread each, since tests wait a quarter of their time; the front door's long story first. Python
# keeps our modules compiled, whatever the environment says: the processes that tests start are a tenth sooner done.
test: setup check
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile -m slow

test-kills: setup
	OMP_NUM_THREADS=1 python -m pytest -s -m slow tests/recipe/test_kills.py tests/serving/test_kills.py

rehearse: setup
	python -m tests.hub.rehearsal

clean:
	rm -rf build output
