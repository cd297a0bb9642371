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
