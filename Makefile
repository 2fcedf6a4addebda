# Everything runs from here. `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
# Targets are names without spaces and colons. The paths below stay relative, so the folder of the checkout may have spaces.
ifneq ($(words $(VENV))$(findstring :,$(VENV)),1)
$(error VENV='$(VENV)' must be a path without spaces and colons, which make cannot have in a target; leave it out for .venv)
endif

# One word for the shell, whatever is in it; value: make leaves a dollar sign as it is. ARGS is shell text by design.
quoted = '$(subst ','\'',$(1))'
option = $(if $(value $(1)),$(2) $(call quoted,$(3)$(value $(1))))
BIN := $(call quoted,$(VENV)/bin)
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
BENCH_STAMP := $(VENV)/.installed-bench
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation
TOOLS := build/tools
RUN = $(BIN)/python -m pipelines run $(if $(value DATA),,--demo) $(call option,DATA,--param,data=) \
	$(call option,BACKBONE,--param,backbone=) $(call option,PARAMS,--params) $(call option,STORE,--store) $(ARGS)

ENGINE ?= build/engine
ENGINE_FILE = $(call quoted,$(value ENGINE))

# Two tests at a time; WORKERS=0 runs them one after the other in this process.
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(call quoted,$(value WORKERS)) --dist worksteal

.PHONY: help install run test test-all test-gpu test-containers test-faults test-faults-nightly test-chaos images upload submit status logs download \
	doctor schedule compile lint bench docs lock sbom audit clean clean-runs
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-20s%s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv with what a run needs, each file checked against locks/

# The path of an editable project is written and read in the locale's encoding: from a folder with an umlaut, no
# interpreter would start under LC_ALL=POSIX. A relative path is ASCII wherever the checkout is; -S: does not read it yet.
RELATIVE := import os, pathlib, sys; [file.write_text(os.path.relpath(".", file.parent) + "\n") for file in \
	pathlib.Path(sys.argv[1]).glob("lib/*/site-packages/__editable__.streetvision-*.pth")]

# pip prefers a file whose hash it knows beforehand, so a build of torch in a folder (find-links) would lose to the index's,
# which brings gigabytes of CUDA: torch is looked for in folders first. CUDA's libraries are constraints of the locks.
# The project itself goes last, for the command `streetvision`: editable, without the network, in seconds. `compat` is a
# path at the end of sys.path; the default's import hook would also fill gaps of a copy of the packages, which tests make.
# setuptools warns of it in a dozen lines.
$(STAMP): locks/installer.txt locks/torch.txt locks/cuda.txt locks/run.txt
	$(call quoted,$(value PYTHON)) -m venv $(call quoted,$(VENV))
	$(INSTALL) --requirement locks/installer.txt
	$(INSTALL) --no-index --no-deps --requirement locks/torch.txt 2>/dev/null \
		|| echo "torch comes from the package index: no folder of pip's find-links has an accepted build"
	$(INSTALL) --requirement locks/run.txt
	LC_ALL=C.UTF-8 $(INSTALL) --no-deps --config-settings editable_mode=compat --editable .
	$(BIN)/python -S -c '$(RELATIVE)' $(call quoted,$(VENV))
	touch $(call quoted,$(STAMP))

$(TEST_STAMP): $(STAMP) locks/test.txt
	$(INSTALL) --requirement locks/test.txt
	touch $(call quoted,$(TEST_STAMP))

$(BENCH_STAMP): $(TEST_STAMP) locks/bench.txt
	$(INSTALL) --requirement locks/bench.txt
	touch $(call quoted,$(BENCH_STAMP))

# The server of STORE=embedded is among the test set's packages.
run: $(if $(value STORE),$(TEST_STAMP),$(STAMP)) ## run the whole pipeline here: on demo data, or DATA=... BACKBONE=...; STORE=embedded for S3
	$(RUN)

test: $(TEST_STAMP) ## the tests that every change needs: all that are not marked slow; a quarter of an hour
	$(PYTEST) -m "not slow" $(ARGS)

test-all: test ## `make test`, then whole pipelines, the documents' commands, kills of real trainings, studies
	$(PYTEST) -m slow $(ARGS)

test-faults: $(TEST_STAMP) ## kill trainings 30 times, tear 1,000 writes, break every artifact
	KILLS=$(call quoted,$(or $(value KILLS),5)) $(BIN)/python -m pytest -s tests/faults

test-faults-nightly: ## the same with 300 kills
	$(MAKE) test-faults KILLS=50

test-chaos: $(TEST_STAMP) ## disturb runs of the demo pipeline at random for an hour, or MINUTES=...; a seed as ARGS="--seed 1"
	$(BIN)/python -m tests.chaos --minutes $(call quoted,$(or $(value MINUTES),60)) $(ARGS)

# OUT=folder keeps the results. Where nothing can be installed: `python -m tests.gpu --out folder`, with what is there.
test-gpu: $(TEST_STAMP) ## check and time the GPU path, 8 minutes on one card; without a GPU it says what it skips
	$(BIN)/python -m tests.gpu $(call option,OUT,--out,) $(ARGS)

# A session of its own for the engine's settings; where no engine can run, the tests are skipped and say so.
test-containers: $(TEST_STAMP) ## build the images and run the pipeline inside them (starts a Docker engine where none runs)
	mkdir -p "$$(dirname $(ENGINE_FILE))"
	images/engine.sh start $(ENGINE_FILE) > $(ENGINE_FILE).env
	engine=$(ENGINE_FILE); trap 'images/engine.sh stop "$$engine"' EXIT; \
	while IFS= read -r setting; do export "$$setting"; done < $(ENGINE_FILE).env; \
	$(BIN)/python -m pytest tests/images/test_containers.py

images: $(STAMP) ## build the images that the compiled pipeline names; PUSH=1 pushes them
	$(BIN)/python -m pipelines images --build $(if $(PUSH),--push)

# The life of the pipeline in Kubeflow; KF_PIPELINES_ENDPOINT says where it is, ARGS holds further options.
upload submit status logs download doctor: $(STAMP)
	$(BIN)/python -m pipelines $@ $(call option,PARAMS,--params) $(ARGS)

upload: ## upload the pipeline as it is here (nothing where the same content is there)
submit: ## start a run: PARAMS=run.yaml, ARGS='--wait'
status: ## the last run's state and steps
logs: ## what the last run's steps wrote
download: ## the last run's artifacts, verified
doctor: ## does the cluster have what a run needs?

schedule: $(STAMP) ## recurring runs: ARGS="create nightly --cron '0 0 3 * * *' --params run.yaml"
	$(BIN)/python -m pipelines schedule $(ARGS)

compile: $(STAMP) ## write the pipeline spec for Kubeflow to build/stage1.yaml
	$(BIN)/python -m pipelines compile

lint: $(TEST_STAMP) ## ruff, mypy (strict), and the law of layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

bench: $(BENCH_STAMP) ## speed ratios against peers, interleaved medians; some minutes on an idle machine
	$(BIN)/python -m tests.bench $(ARGS)

docs: $(TEST_STAMP) ## the documentation as a site in build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(TOOLS)/.installed: locks/installer.txt locks/tools.txt
	$(call quoted,$(value PYTHON)) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement locks/installer.txt
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement locks/tools.txt
	touch $@

lock: $(TOOLS)/.installed ## compile locks/ from the requirements and constraints.txt (asks the package index)
	$(TOOLS)/bin/python locks/compile.py

# It warns that a list of packages has no graph of their dependencies.
sbom: $(TOOLS)/.installed ## bills of materials (CycloneDX) of the environment and of both kinds of images, in build/sbom
	mkdir -p build/sbom
	set -e; export PYTHONWARNINGS=ignore; for set in run image-cpu image-trainer; do $(TOOLS)/bin/cyclonedx-py requirements locks/$$set.txt \
		--pyproject pyproject.toml --output-reproducible --output-file build/sbom/$$set.cdx.json; done

audit: $(TOOLS)/.installed ## known vulnerabilities of all pins; skipped, saying so, where no advisories can be reached
	$(TOOLS)/bin/python locks/audit.py $(ARGS)

clean-runs: ## remove what killed runs left in runs/, or OUTPUT=...; the next run there does that too
	$(BIN)/python -m pipelines.local.leftovers $(call quoted,$(or $(value OUTPUT),runs))

clean: ## remove runs, build output and the virtual environment
	rm -rf runs build $(call quoted,$(VENV))
