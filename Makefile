# The project's front door. `make help` lists what it can do.
.DEFAULT_GOAL := help
SHELL := /bin/bash

ACCELERATOR ?= cpu
PYTHON      ?= python3
VENV        := $(CURDIR)/.venv
BIN         := $(VENV)/bin
READY       := $(VENV)/.ready-$(ACCELERATOR)

export PATH := $(BIN):$(PATH)

.PHONY: help
help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(READY)  ## install the pinned environment into .venv (ACCELERATOR=cpu or gpu)

$(READY): requirements/$(ACCELERATOR).txt
	requirements/install.sh $(ACCELERATOR) $(PYTHON) $(VENV)
	touch $@

.PHONY: repro
repro: $(READY)  ## run the committed profile from end to end, then show the results
	@[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock  # a killed run can leave it empty, and dvc then refuses to start
	dvc repro
	@python -m stages.summary

.PHONY: summary
summary: $(READY)  ## show the results of the last run
	@python -m stages.summary

.PHONY: compare
compare: $(READY)  ## two teachers side by side: make compare A=adaptive B=verbose
	@scripts/compare.sh $(A) $(B)

.PHONY: lint
lint: $(READY)  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

.PHONY: test
test: $(READY)  ## every test, the slow ones and a small end-to-end run included
	pytest

.PHONY: test-fast
test-fast: $(READY)  ## the tests that take seconds
	pytest -m "not slow"

SCALE ?= 0.1

.PHONY: bench
bench: $(READY) $(VENV)/.ready-bench  ## the corpus stages beside their peers: make bench SCALE=1 for the study's size
	python -m bench $(SCALE)

$(VENV)/.ready-bench: $(READY)
	$(BIN)/pip --disable-pip-version-check install --quiet --no-deps trl==1.16.0
	touch $@
