# Two commands: `make book` and `make test`. Each sets up .venv on first use; the second run starts within seconds.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
# `python3` if it is new enough, else the newest of the others.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
PAGES := _build/html/index.html
# Tests run two at a time with one thread each: the same bits on every machine, and faster than one at a time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: help setup book links test full test-gpu weights labs student wheelhouse bench lint lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/.synced  ## create .venv with the locked packages
$(VENV)/.synced: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "sslcourse needs Python 3.11, 3.12 or 3.13 on the PATH; name one with: make PYTHON=/path/to/python"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "could not create $(VENV); on Debian and Ubuntu install the package python3-venv and try again"; exit 2; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -m1 -oE '^uv==[^ ]+' requirements.lock)"
	$(BIN)/uv pip sync -q --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

book: setup  ## build the book (jupyter-book build .) and print where the pages are
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/jupyter-book build . -n -W --keep-going
	@echo "The book: file://$(abspath $(PAGES))"

links: setup  ## ask the sites that the book links to whether the pages are there (needs the network)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/jupyter-book build . --builder linkcheck

test: setup  ## run the tests
	$(PYTEST) -m "not gpu and not slow"

full: setup  ## run every test, the slow ones and all labs too
	SSLCOURSE_ALL_LABS=1 $(PYTEST) -m "not gpu"

test-gpu:  ## run the tests that need CUDA; with .venv if there is one, else with the Python at hand
	$(or $(wildcard $(BIN)/python),python3) -m pytest -q -s -m gpu tests/gpu

weights: setup  ## train the small models of weights/ again (an hour)
	rm -rf runs/clip_shapes runs/mae_shapes
	$(BIN)/sslcourse pretrain clip --data captions --out runs/clip_shapes
	$(BIN)/python -m sslcourse.zoo.weights runs/clip_shapes weights/clip_shapes.safetensors
	$(BIN)/sslcourse pretrain mae --preset pictures --out runs/mae_shapes
	$(BIN)/python -m sslcourse.zoo.weights runs/mae_shapes weights/mae_shapes.safetensors
	for kind in sam mobilesam hqsam fastsam grounded matting; do $(BIN)/python -m sslcourse.segment.train $$kind || exit 1; done

labs: setup  ## generate labs/ from solutions/
	$(BIN)/python -m autograder.labs

student: setup  ## build the students' hand-out: dist/sslcourse-labs.zip
	$(BIN)/autograder zip student

wheelhouse: setup  ## all packages for a classroom without a network (FOR="--system windows --python 3.12")
	$(BIN)/python -m autograder.wheelhouse $(FOR)

$(VENV)/.bench: $(VENV)/.synced requirements-bench.lock
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements-bench.lock
	@touch $@
bench: $(VENV)/.bench  ## time and weigh the library against its peers (ROWS="ntxent-2048 ema" for some)
	$(BIN)/python -m benchmarks $(ROWS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

LOCK := $(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url
lock:  ## compile the lock files again for all platforms (UPGRADE=--upgrade for newer versions)
	@test -x $(BIN)/uv || $(MAKE) setup
	$(LOCK) $(UPGRADE) --extra dev -o requirements.lock
	$(LOCK) $(UPGRADE) --extra bench -c requirements.lock -o requirements-bench.lock

clean:  ## remove what the other commands built (.venv too)
	rm -rf $(VENV) _build .cache .pytest_cache .hypothesis .mypy_cache .ruff_cache dist build
