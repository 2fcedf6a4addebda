# Everything runs from here. `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := $(BIN)/python -m pipelines run $(if $(DATA),,--demo) $(if $(DATA),--param data=$(DATA)) $(if $(BACKBONE),--param backbone=$(BACKBONE)) $(if $(PARAMS),--params $(PARAMS)) $(ARGS)

.PHONY: help install run test test-faults test-faults-nightly compile lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## create .venv with the pinned dependencies

# torch goes first and from the constraints file: without it, another package's requirement could bring a CUDA build.
$(STAMP): requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement requirements-dev.txt
	touch $(STAMP)

run: $(STAMP) ## run the whole pipeline here: on demo data, or DATA=<folder or parquet> BACKBONE=<path or hub id>
	$(RUN)

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest

test-faults: $(STAMP) ## kill trainings 20 times, tear 1,000 writes, break every artifact
	KILLS=$(or $(KILLS),5) $(BIN)/python -m pytest -s tests/faults

test-faults-nightly: ## the same with 200 kills
	$(MAKE) test-faults KILLS=50

compile: $(STAMP) ## write the pipeline spec for Kubeflow to build/stage1.yaml
	$(BIN)/python -m pipelines compile

lint: $(STAMP) ## ruff and mypy (strict)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP) ## speed ratios against peers, interleaved medians; some minutes on an idle machine
	$(BIN)/python -m tests.bench $(ARGS)

clean: ## remove runs, build output and the virtual environment
	rm -rf runs build $(VENV)
