# `make demo` reconstructs the sample scene; `make test` runs the tests. Each works alone.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
OUT ?= demo

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(BIN)/sfm-match run datasets/gallery/images $(OUT) --truth datasets/gallery/gt
	@echo
	@echo "The model is in $(OUT)/model: open it with 'colmap gui' or pycolmap, the figures are in"
	@echo "$(OUT)/results.json. Now your own photographs: $(BIN)/sfm-match run PHOTOS OUT"

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n auto

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Install the venv module first: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(OUT)
