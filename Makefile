# `make repro` is the whole project: it makes the environment and runs the pipeline. `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   ?= .venv
# Optional dependency groups. `reference` (smplx, used by tests only) has a non-commercial licence: leave it out with EXTRAS=dev.
EXTRAS ?= dev,reference
# Matched pair, installed first so that no later resolution swaps one of them.
TORCH  := torch==2.15.0 torchvision==0.29.2

# Of `make fuzz`. FUZZ takes further options: `--only shards fits`, `--record benchmarks/fuzz.md`.
SECONDS ?= 120
INPUTS ?= 1000000
SEED   ?= 0

BIN    := $(VENV)/bin
comma  := ,
STAMP  := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# No stage, test or server reports home.
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1
export GIT_PYTHON_REFRESH := quiet
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help env repro test test-slow check format fuzz serve clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

env: $(STAMP) ## make or update the virtual environment (EXTRAS=dev leaves the non-commercial test reference out)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3.11 or newer found: install it or set PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv)" >&2; exit 2; }
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH) -e '.[$(EXTRAS)]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  echo "opencv-python needs libGL, which this machine lacks: taking opencv-python-headless instead (same cv2, no windows)"; \
	  $(BIN)/python -m pip uninstall -q -y opencv-python && \
	  $(BIN)/python -m pip install -q -c constraints.txt --force-reinstall --no-deps opencv-python-headless && $(BIN)/python -c 'import cv2'; }
	@rm -f $(VENV)/.installed-*
	@touch $@

repro: env ## run the pipeline: every stage that is out of date; compare its metrics with the committed ones
	$(BIN)/python -m dvc repro
	@$(BIN)/python -m pipeline.compare

# Tests run side by side, so that a second thread of one would only hold up another.
test: env check ## lint, types, import layers and the fast tests
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: test ## the long tests too: the whole pipeline on the debug preset, real servers
	$(BIN)/python -m pytest -m slow

check: env ## ruff, mypy, import-linter, deptry
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry .

format: env ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: env ## feed changed files to every reader for SECONDS, or until each had INPUTS (seed: SEED)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --inputs $(INPUTS) --seed $(SEED) $(FUZZ)

serve: env ## Prefect server, work pool and worker, and the MLflow UI, on localhost, until Ctrl-C
	exec $(BIN)/python -m flows.serve

clean: ## remove caches, half-done work, kept features and built packages; data, models, reports and the run store stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache .metro/work .metro/features
	find metro pipeline flows tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
