# The two commands of a newcomer: make demo, make test. Both set up .venv themselves.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
OUTPUT ?= output/demo
DEVICE ?= auto
AFFINE ?= affine

.PHONY: demo test lint benchmark clean
.DELETE_ON_ERROR:

# the environment, rebuilt when what it is made of changes
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed (PYTHON=python3.x make …)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: Python's venv module is missing: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e ".[test]"
	@touch $@

# register a phantom pair, or MOVING=… FIXED=… of the user's
demo: $(VENV)/.installed
ifdef MOVING
	@$(BIN)/python -W ignore -m bundle register --moving "$(MOVING)" --fixed "$(FIXED)" --output_dir "$(OUTPUT)" --affine $(AFFINE) --device $(DEVICE)
else
	@$(BIN)/python -W ignore -m bundle demo --output_dir "$(OUTPUT)" --device $(DEVICE)
endif

test: $(VENV)/.tested
	$(BIN)/python -m pytest -q

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# cost of the local attention backends and memory of a whole forward pass
benchmark: $(VENV)/.installed
	$(BIN)/python -W ignore -m bundle benchmark

clean:
	rm -rf $(VENV) output data build
