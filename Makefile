# Main commands; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# What .venv was set up for; without one, cpu. Another value replaces the environment.
ACCELERATOR ?= $(if $(wildcard .venv/.ready-gpu),gpu,cpu)
PYTHON      ?= python3
VENV        := $(CURDIR)/.venv
BIN         := $(VENV)/bin
READY       := $(VENV)/.ready-$(ACCELERATOR)
DEV         := $(VENV)/.ready-dev
INSTALL     := scripts/install.sh $(VENV)

export PATH := $(BIN):$(PATH)

.PHONY: help
help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(READY)  ## install the pinned environment into .venv (ACCELERATOR=cpu or gpu)

$(READY): requirements/$(ACCELERATOR).txt
	scripts/setup.sh $(ACCELERATOR) $(PYTHON) $(VENV)
	touch $@

$(DEV): $(READY) requirements/dev.txt
	$(INSTALL) <requirements/dev.txt
	touch $@

.PHONY: repro
repro: $(READY)  ## run the committed profile from end to end, then show the results (AT_ONCE=2: chains of stages at a time)
	@python -m distillery.check_settings
	@python -m distillery.core.pipeline $(AT_ONCE)
	@python -m distillery.evaluation.summary

.PHONY: progress
progress: $(READY)  ## what all running stages are at: done, rate, time left, cost
	@python -m distillery.core.progress

.PHONY: summary
summary: $(READY)  ## show the results of the last run
	@python -m distillery.evaluation.summary

.PHONY: fetch
fetch: $(READY)  ## download every locked model, so that GPU nodes run with HF_HUB_OFFLINE=1
	@python -m distillery.core.hub

.PHONY: ledger-push ledger-pull
ledger-push: $(READY)  ## add this machine's ledger to the DVC remote, for colleagues who then generate nothing twice
	@python -m distillery.generation.ledger_sharing push
ledger-pull: $(READY)  ## add the ledger that is in the DVC remote to this machine's
	@python -m distillery.generation.ledger_sharing pull

.PHONY: compare
compare: $(READY)  ## compare two arms: make compare A=adaptive B=verbose
	@python -m distillery.evaluation.compare_arms $(A) $(B)

.PHONY: experiments
experiments: $(READY)  ## two arms as DVC experiments, for dvc metrics diff: make experiments A=adaptive B=verbose
	@scripts/arm_experiments.sh $(A) $(B)

.PHONY: publish
publish: $(READY)  ## results to a hub organisation: make publish ORG=my-org WHAT="data:adaptive report" [PUSH=1] [PUBLIC=1]
	@python -m distillery.evaluation.publish "$(ORG)" $(WHAT) $(if $(filter 1,$(PUSH)),--push) $(if $(filter 1,$(PUBLIC)),--public)

.PHONY: browse
browse: $(READY)  ## read all traces in a browser: make browse PORT=8765
	@python -m distillery.reader.server $(PORT)

.PHONY: pilot
pilot: $(READY)  ## students of small shares of the data first: learning curves, and whether the rest can change who is ahead
	@scripts/pilot.sh

.PHONY: measure
measure: $(READY)  ## compare judge and reward model with labels: make measure LABELS=labelled.jsonl
	@python -m distillery.verification.measure $(LABELS)

.PHONY: inspect
inspect: $(READY)  ## what a data set of traces is worth, before a run: make inspect DATA=path-or-hub-id LIMIT=1000
	@LIMIT=$(or $(LIMIT),1000) python -m distillery.verification.inspect_traces "$(DATA)" "$(REVISION)" "$(or $(SPLIT),train)"

.PHONY: memory
memory: $(READY)  ## memory per GPU and hours of a training: make memory PROFILE=paper GPUS="8 16 32 64" DEVICE=H100
	@python -m distillery.training.memory $(PROFILE) $(if $(GPUS),--gpus $(GPUS)) $(if $(DEVICE),--device $(DEVICE))

.PHONY: gc
gc: $(READY)  ## list stored trainings; FREE=1 deletes unreferenced ones
	@python -m distillery.training.store $(if $(filter 1,$(FREE)),--free)

.PHONY: lint
lint: $(DEV)  ## ruff, mypy, and whether code.yaml and docs/settings.md are up to date
	ruff check .
	ruff format --check .
	mypy
	python -m distillery.core.codehash --check
	python scripts/settings_page.py --check

.PHONY: check
check: lint  ## lint and the fast tests: about two minutes
	pytest -n 2 --no-loadscope-reorder -m "not slow"

.PHONY: test
test: $(DEV)  ## the tests, including slow ones and a small end-to-end run
	pytest -n 2 --no-loadscope-reorder -m "not exhaustive"

EXHAUSTIVE ?= 0/1

.PHONY: test-all
test-all: $(DEV)  ## all tests: many kills, ranks, two machines as well; EXHAUSTIVE=0/3: the first third of those
	pytest -n 2 --no-loadscope-reorder --exhaustive $(EXHAUSTIVE)

.PHONY: docs
docs: $(DEV)  ## build the documentation as a site into site/
	mkdocs build --strict --quiet --config-file conf/mkdocs.yml
	@echo site/index.html

SCALE ?= 0.1

.PHONY: bench
bench: $(READY) $(VENV)/.ready-bench  ## benchmark the corpus stages against baselines; SCALE=1 is the study's size
	python -m bench $(SCALE)

$(VENV)/.ready-bench: $(READY)
	$(INSTALL) <<<trl==1.16.0
	touch $@
