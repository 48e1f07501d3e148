# Layer surgery on diffusion transformers. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
PIP := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help lock docs examples demo test kills test-page report test-oldest test-newest test-slow mutants damage-map test-lycoris-3 lint fuzz reach bench train-demo train-judges conditionings clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14)' 2>/dev/null || \
	  { echo "$$($(PYTHON) --version) at $(PYTHON) will not do: take 3.11, 3.12 or 3.13, as in make PYTHON=python3.12"; exit 1; }
	@echo "Installing the versions of requirements.lock into $(VENV): 2 to 5 minutes and about 6 GB, once"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python $(PIP) --require-hashes --requirement requirements.lock
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

lock:  ## write requirements.lock anew: the newest versions that pyproject.toml allows, for Python 3.11 to 3.13
	$(PYTHON) -m venv out/lock
	out/lock/bin/python $(PIP) --upgrade uv
	out/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --upgrade \
	  --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

docs:  ## write docs/api.md anew from the docstrings
	$(PYTHON) docs/render_api.py

demo: $(INSTALLED)  ## draw with the bundled pipeline before and after surgery, and measure it (3 to 6 minutes on two cores)
	$(BIN)/surgery demo --out out/demo

test: $(INSTALLED)  ## run the tests that are not marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not browser' -n 2  # a thread each: two processes have two cores

test-slow: $(INSTALLED)  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

kills: $(INSTALLED)  ## kill runs, and the workers of Ray where it is installed, at 30 random moments each (an hour)
	$(BIN)/python -m pytest -m slow tests/commands/test_killed_runs.py tests/experiment/test_ray_engine.py -k killed

test-page: $(INSTALLED)  ## look at the report's page with headless Chromium, where there is one (Debian: apt-get install chromium)
	$(BIN)/python -m pytest -m browser

report: $(INSTALLED)  ## silence each layer and component of the bundled pipeline, measure it, and write the page (ten minutes on two cores)
	$(BIN)/surgery evaluate specs/demo-sweeps/skip_sweep_each.yaml specs/demo-sweeps/replace_sweep_each.yaml --prompts exports/demo/prompts.txt --sample 40 --steps 8 --keep-images all --out out/report/evaluation
	$(BIN)/surgery report out/report/evaluation --out out/report/page.html --figures out/report/figures --force

test-lycoris-3: $(INSTALLED)  ## run the tests of training configs on LyCORIS 3.4.0, the oldest that is supported
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target out/lycoris-3 lycoris-lora==3.4.0
	PYTHONPATH=out/lycoris-3 $(BIN)/python -m pytest tests/export tests/commands/test_export.py

fuzz: $(INSTALLED)  ## mutate specs, weights, checkpoints and all other files that are read (about an hour)
	$(BIN)/python tests/fuzz.py --count 100000
	$(BIN)/python tests/fuzz_tensor_files.py --count 20000
	$(BIN)/python tests/fuzz_checkpoint.py --count 2000
	$(BIN)/python -W ignore tests/fuzz_readers.py --count 100000

mutants: $(INSTALLED)  ## make plausible mistakes, one by one, and see whether the tests see them (about 20 minutes)
	$(BIN)/python tests/mutants.py

damage-map: $(INSTALLED)  ## measure and draw what is lost without each layer of the bundled pipeline, by timestep (half an hour)
	$(BIN)/surgery evaluate specs/demo-sweeps/skip_sweep_each.yaml specs/demo-sweeps/replace_sweep_each.yaml --prompts exports/demo/prompts.txt --extractor none --clip none --lpips none --out out/damage/evaluation
	$(BIN)/surgery profile demo --prompts exports/demo/prompts.txt --out out/damage/profile.safetensors
	$(BIN)/surgery plot out/damage/evaluation --beside out/damage/profile.safetensors --out out/damage/plots

reach: $(INSTALLED)  ## go through all transformer classes of diffusers, tiny, with every operation, into docs/reach.md (about 20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/reach.py --checkpoint --out docs/reach.md

# What moves under us: the laws, the oracles and the tracer, with other versions than the locked ones.
LAWS := tests/tracing tests/graph tests/anatomy/test_from_model.py tests/checkpoint/test_law.py tests/verify tests/test_architecture.py
OLDEST := torch==2.13.0 torchvision==0.28.0 diffusers==0.42.0

test-oldest: requirements.lock pyproject.toml  ## the laws on the oldest torch and diffusers that are allowed, in .venv-oldest
	$(PYTHON) -m venv --clear .venv-oldest
	sed -nE '/^(torch|torchvision|diffusers|triton|setuptools|nvidia-[^=]*|cuda-[^=]*)==/d; s/^([a-z][^ ]*==.*) \\$$/\1/p' requirements.lock > .venv-oldest/rest.txt
	.venv-oldest/bin/python $(PIP) --constraint .venv-oldest/rest.txt $(OLDEST) --editable '.[dev]'
	.venv-oldest/bin/python -m pytest -m 'not slow' $(LAWS)

test-newest: pyproject.toml  ## the laws on the newest of everything that the registry gives, pre-releases too, in .venv-newest
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python $(PIP) --pre --editable '.[dev]'
	.venv-newest/bin/python -m pytest -m 'not slow' $(LAWS)

examples: $(INSTALLED)  ## find example inputs for diffusers' transformer classes anew, into surgery/calls/example_rows.json
	$(BIN)/python tests/example_rows.py

lint: $(INSTALLED)  ## ruff (style and format) and mypy (strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## ratios of speed and memory against what one would do instead
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

train-demo: $(INSTALLED)  ## train the bundled pipeline from nothing (hours on a CPU, minutes on a GPU)
	$(BIN)/python -m surgery.demo.training.train --work out/demo-training

train-judges: $(INSTALLED)  ## train the bundled feature extractor and CLIP from nothing (about 20 minutes on one core)
	$(BIN)/python -m surgery.demo.training.train_judges --work out/judges-training

conditionings: $(INSTALLED)  ## cut the models of four conditionings that ship, and tell which survives (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conditionings --shipped

clean:  ## remove the virtual environment and what the targets wrote
	rm -rf $(VENV) out
