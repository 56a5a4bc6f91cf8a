# make quickstart   install, run the small study on this machine, write its report
# make test         the tests but the long ones, which CI runs too (two of four workers wait for a Slurm)
# make gpu          check and measure this machine's GPU; results are kept in gpu.jsonl
# make notebooks    run the notebooks and the tutorial from top to bottom, on small studies
# make docs         the pages: build/docs/index.html, readable offline; a broken link is an error
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install quickstart test gpu gpu-dry notebooks docs check clean

help:
	@sed -n 's/^# //p' Makefile

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mpdit needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments (Debian: apt-get install python3-venv)"; exit 2; }
	@echo "Installing into $(VENV) (PyTorch is large: some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(VENV)/installed
	$(BIN)/python launch.py submit experiments/quickstart.yaml --cluster local --wait
	$(BIN)/python -m analysis results/quickstart

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 4

gpu: $(VENV)/installed
	$(BIN)/python benchmarks/gpu.py

gpu-dry: $(VENV)/installed-dev  # the same code on small models, without a GPU
	$(BIN)/python benchmarks/gpu.py --tiny --device cpu --patience 4 --out $$(mktemp -d)

notebooks: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow tests/whole/test_notebooks.py tests/whole/test_tutorial.py

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build -q -E -W -c docs . build/docs

check: $(VENV)/installed-dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

clean:
	rm -rf $(VENV) build *.egg-info
