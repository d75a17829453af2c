# Two commands: `make reproduce` regenerates every table and figure, `make test` runs what CI runs.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= toy
PAPER ?=
JOBS ?= 2
BIN := .venv/bin
# a machine without a CUDA device must not download CUDA builds
CUDA := $(shell nvidia-smi -L 2>/dev/null | head -n 1)
PINS := $(if $(CUDA),,-c .ci/constraints-cpu.txt)

.PHONY: reproduce test lab docs bench hooks clean
.DEFAULT_GOAL := help

help:
	@echo "make reproduce [PROFILE=toy|paper] [PAPER=v1]  every table and figure again"
	@echo "make test                                       what CI runs"
	@echo "make lab                                        JupyterLab on the notebooks"
	@echo "make docs                                       the site (needs Quarto)"
	@echo "make bench                                      speed against peers, as ratios"

.venv/.ready: settings.ini setup.py .ci/constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "babyvlm needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on $(PINS) -e '.[dev]'
	@touch $@

reproduce: .venv/.ready
	@$(BIN)/babyvlm reproduce --profile $(PROFILE) --jobs $(JOBS) $(if $(PAPER),--paper $(PAPER))

test: .venv/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/test

lab: .venv/.ready
	@echo "device: $$($(BIN)/babyvlm device)"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab nbs/index.ipynb

docs: .venv/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/docs

bench: .venv/.ready
	@$(BIN)/python -m babyvlm.cli bench $(BENCH)

hooks: .venv/.ready
	$(BIN)/nbdev_install_hooks

clean:
	rm -rf _proc _docs _runs .pytest_cache
