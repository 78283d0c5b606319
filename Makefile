# make demo   kernels of a trained network beside the network and SVMs, on the digits
# make test   the whole test suite
# make lint   ruff and mypy
# make doc    the documentation, warnings are errors
# Each creates .venv on first use and is quick afterwards.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

.PHONY: demo test lint doc clean

demo: $(VENV)/.installed-plot,train
	$(BIN)/python -m sklearn_nftk

test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

doc: $(VENV)/.installed-doc
	$(BIN)/sphinx-build -W --keep-going -b html doc doc/_build/html

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# one stamp for each set of optional dependencies
$(VENV)/.installed-%: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(PIP) -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info doc/_build doc/generated doc/auto_examples
