# Needs Python >= 3.11, git and make. `make` alone lists the targets; all of them run in .venv, which the first one sets up.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
HERE := $(CURDIR)
PORT ?= 5000
UPGRADE ?= --upgrade
DIRTY = $(if $(shell git status --porcelain),-dirty)
VARIANT ?= cuda
IMAGE ?= $(eval IMAGE := odn-python:$(shell git rev-parse --short HEAD)$(DIRTY)$(if $(filter cpu,$(VARIANT)),-cpu))$(IMAGE)

# Another active environment must not leak in, and stages find `odn` and `dvc` by name. Compiled modules are kept: starting is faster.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
export VIRTUAL_ENV := $(HERE)/.venv
export PATH := $(HERE)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false

# .ready names the folder that the environment was made in: one that is broken, half made, or moved is made anew.
# What is compiled lies beside its source (hatch_build.py), where `git clean` finds it.
READY := .venv/.ready
COMPILED := src/odn/compiled/libodn.so
ifneq ($(shell test -x $(BIN)/python && { test "$$(uname -sm)" != "Linux x86_64" || test -e $(COMPILED); } && cat $(READY) 2>/dev/null),$(HERE))
.PHONY: $(READY)
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(READY) ## Set up .venv; the other targets do it when needed

.PHONY: repro
repro: dvc-ready $(READY) ## Run the pipeline on what params.yaml says, and print what it found
	@$(BIN)/python -m pipelines.before_dvc
	@$(BIN)/dvc repro
	@$(BIN)/odn show

# Tests write and flush thousands of small files: where memory holds a file system with room, they do it there, and nothing stays.
SHM := /dev/shm
.PHONY: test
test: $(READY) ## Run the tests; choose some with ARGS="tests/unit -k config"
	@if [ -z "$${TMPDIR:-}" ] && df -Pk $(SHM) 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 {found = 1} END {exit !found}'; then \
	  memory=$$(mktemp -d $(SHM)/odn-tests-XXXXXX); trap 'rm -rf "$$memory"' EXIT; \
	  printf '#!/bin/sh\n' >"$$memory/may-run"; chmod +x "$$memory/may-run"; \
	  if "$$memory/may-run" 2>/dev/null; then export TMPDIR="$$memory"; fi; \
	fi; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: check
check: $(READY) ## Check format, lint, types, import layers, and that dvc.yaml holds together
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dvc stage list --all --name-only >/dev/null

BENCH ?= digits --arms growth grid scratch full torch_pruning --seeds 0 1 2
.PHONY: bench
bench: $(READY) ## Measure odn beside its peers, into build/bench; other data, arms, seeds: BENCH="NAME …", see benchmarks/README.md
	@$(BIN)/python -m benchmarks.run $(BENCH) --out build/bench
	@$(BIN)/python -m benchmarks.page $(firstword $(BENCH)) --out build/bench

.PHONY: format
format: $(READY) ## Put the code into its format, and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: ui
ui: $(READY) ## Browse runs, curves and the model registry; another port: PORT=5001
	@case "$${MLFLOW_TRACKING_URI:-}" in http*) \
	  echo "odn: MLFLOW_TRACKING_URI is set; open it in a browser: $$($(BIN)/python -c 'from odn.tracking.place import tracking_place; print(tracking_place().shown)')"; exit 0;; \
	esac; \
	if $(BIN)/python -c 'import socket; socket.create_connection(("127.0.0.1", $(PORT)), 1)' 2>/dev/null; then \
	  echo "odn: port $(PORT) is taken; choose another: make ui PORT=$$(($(PORT) + 1))" >&2; exit 1; \
	fi; \
	echo "MLflow: http://127.0.0.1:$(PORT)/#/experiments/1/runs?workflowType=machine_learning (stop with Ctrl-C)"; \
	exec $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	  --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --artifacts-destination mlartifacts

.PHONY: cost
cost: $(READY) ## Print parameters, bytes, MACs and latency at every depth
	@$(BIN)/odn cost

.PHONY: lock
lock: $(READY) ## Write both requirements.lock anew from pyproject.toml: newest versions, hashes, no addresses
	@lock='$(BIN)/python -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock"'; \
	eval "$$lock --all-extras --group dev $(UPGRADE) --output-file requirements.lock"; \
	eval "$$lock --extra step --no-emit-package odn --constraint requirements.lock --output-file components/requirements.lock"

.PHONY: backbones
backbones: $(READY) ## Write the table of backbones anew, from the installed timm and torchvision: some minutes
	@$(BIN)/python -m odn.models.catalogue

# Only what is in build/image can get into it. The build may see a certificate and an index that pip is told of, and keeps neither.
.PHONY: image
image: $(READY) ## Build the image of Kubeflow's steps; VARIANT=cpu without CUDA; another name or base: IMAGE=name:tag BASE_IMAGE=python:3.12-slim
	@rm -rf build/image
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build --target wheel --directory build/image >/dev/null
	@cp components/requirements.lock build/image/
	DOCKER_BUILDKIT=1 docker build --file components/Dockerfile --tag $(IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg VARIANT=$(VARIANT) --build-arg VERSION="$$($(BIN)/python -m hatchling version)" --build-arg REVISION=$(shell git rev-parse HEAD)$(DIRTY) \
	  $${PIP_CERT:+--secret id=ca,src="$$PIP_CERT"} $${PIP_CONFIG_FILE:+--secret id=pip,src="$$PIP_CONFIG_FILE"} build/image

.PHONY: test-image
test-image: $(READY) ## Test the image that `make image` has built
	@ODN_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/image $(ARGS)

.PHONY: clean
clean: ## Remove .venv and caches; data, models and runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: dvc-ready
dvc-ready:
	@git rev-parse --git-dir >/dev/null 2>&1 || \
	  { echo "odn: this folder is not a git repository, and DVC needs one; clone it, or run 'git init' here" >&2; exit 1; }
	@test -f .dvc/config || { echo "odn: DVC is not initialised here; run '$(BIN)/dvc init'" >&2; exit 1; }

$(READY): requirements.lock pyproject.toml hatch_build.py $(wildcard src/odn/compiled/*.cpp)
	@python=''; \
	for name in "$${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do \
	  if "$$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$name; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "odn: needs Python >= 3.11 with its venv module, on Debian the package python3-venv (python3 is" \
	    "$$(python3 --version 2>&1 || true)); install it, or name another: make PYTHON=/path/to/python3.12 ..." >&2; \
	  exit 1; \
	fi; \
	if [ -e .venv/.unfinished ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Setting up .venv with $$("$$python" --version), once: a few minutes"; \
	  "$$python" -m venv --clear .venv; \
	else \
	  echo "Bringing .venv in line with requirements.lock"; \
	fi; \
	touch .venv/.unfinished; \
	if ! cmp --silent requirements.lock .venv/requirements.lock; then \
	  awk '/^[a-z]/ {uv = /^uv==/} uv' requirements.lock > .venv/uv.lock; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.lock; \
	  $(BIN)/python -m uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock; \
	  cp requirements.lock .venv/requirements.lock; \
	fi; \
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	$(BIN)/python -c 'import torch, torchvision, mlflow.pytorch, matplotlib.pyplot, boto3'; \
	printf '%s\n' "$(HERE)" > $(READY); \
	rm .venv/.unfinished
