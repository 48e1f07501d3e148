# Layer surgery on diffusion transformers. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lycoris-3 lint fuzz bench train-demo train-judges clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## draw pictures with the bundled pipeline, before and after surgery (about 2 minutes)
	$(BIN)/surgery demo --out out/demo

test: $(INSTALLED)  ## run the tests that are not marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2  # a thread each: two processes have two cores

test-slow: $(INSTALLED)  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-lycoris-3: $(INSTALLED)  ## run the tests of training configs on LyCORIS 3.4.0, the oldest that is supported
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target out/lycoris-3 lycoris-lora==3.4.0
	PYTHONPATH=out/lycoris-3 $(BIN)/python -m pytest tests/export tests/commands/test_export.py

lint: $(INSTALLED)  ## ruff (style and format) and mypy (strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(INSTALLED)  ## mutate specs, files of weights and configs: each must be right, or a message that says where
	$(BIN)/python tests/fuzz.py --count 100000
	$(BIN)/python tests/fuzz_tensor_files.py --count 100000
	$(BIN)/python tests/fuzz_checkpoint.py --count 10000 --configs 300

bench: $(INSTALLED)  ## ratios of speed and memory against what one would do instead
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

train-demo: $(INSTALLED)  ## train the bundled pipeline from nothing (hours on a CPU, minutes on a GPU)
	$(BIN)/python -m surgery.demo.train --work out/demo-training

train-judges: $(INSTALLED)  ## train the bundled feature extractor and CLIP from nothing (about 20 minutes on one core)
	$(BIN)/python -m surgery.demo.train_judges --work out/judges-training

clean:  ## remove the virtual environment and what the targets wrote
	rm -rf $(VENV) out
