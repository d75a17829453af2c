# Two commands: `make reproduce` regenerates every table and figure, `make test` runs what CI runs.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= toy
PAPER ?=
ONLY ?=
BENCH ?=
LAB ?=
JOBS ?= 2
BIN := .venv/bin
# a machine without a CUDA device must not download CUDA builds
CUDA := $(shell nvidia-smi -L 2>/dev/null | head -n 1)
PINS := $(if $(CUDA),,-c .ci/constraints-cpu.txt)
# make LOCK=1: the very versions with which the toy tables were made
PINS += $(if $(LOCK),-c .ci/lock.txt)

.PHONY: help reproduce rehearse test lab docs bench verify lmms board hooks clean
.DEFAULT_GOAL := help

help:
	@echo "make reproduce [PROFILE=toy|study|rehearsal|paper] [PAPER=v1,v2] [ONLY=main] [JOBS=2]  every table and figure again"
	@echo "make rehearse                                                       the path of the real data, on files that the nursery writes"
	@echo "make test                                                           what CI runs"
	@echo "make lab                                                            JupyterLab on the notebooks"
	@echo "make docs                                                           the site: _docs/ with Quarto, else plain HTML in _site/"
	@echo "make bench [BENCH=--full]                                           speed against peers, as ratios"
	@echo "make verify                                                         hash every artifact, make the toy tables again, compare"
	@echo "make lmms                                                           our models and tasks under a real lmms-eval"
	@echo "make board                                                          a submission under the board's own PyTorch and transformers"
	@echo "make hooks                                                          git merges notebooks cell by cell"

.venv/.ready: settings.ini setup.py .ci/constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "babyvlm needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on $(PINS) -e '.[dev]'
	@bash .ci/wordnet .venv
	@touch $@

reproduce: .venv/.ready
	@$(BIN)/babyvlm reproduce --profile $(PROFILE) --jobs $(JOBS) $(if $(PAPER),--paper $(PAPER)) $(if $(ONLY),--only $(ONLY))

rehearse: .venv/.ready
	@$(BIN)/babyvlm reproduce --profile rehearsal --jobs $(JOBS)

test: .venv/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/test

lab: .venv/.ready
	@echo "device: $$($(BIN)/babyvlm device)"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB) nbs/index.ipynb

docs: .venv/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/docs

bench: .venv/.ready
	@$(BIN)/babyvlm bench $(BENCH)

verify: .venv/.ready
	@$(BIN)/babyvlm verify

.venv-lmms/.ready: settings.ini setup.py .ci/constraints-cpu.txt
	$(PYTHON) -m venv .venv-lmms
	.venv-lmms/bin/python -m pip install --progress-bar on $(PINS) -e '.[lmms]'
	@touch $@

lmms: .venv/.ready .venv-lmms/.ready
	@BABYVLM_LMMS_PYTHON="$(CURDIR)/.venv-lmms/bin/python" $(BIN)/python -m pytest tests/test_lmms_client.py -q -rs

.venv-board/.ready: .ci/constraints-board.txt
	$(PYTHON) -m venv .venv-board
	.venv-board/bin/python -m pip install --progress-bar on -r .ci/constraints-board.txt
	@touch $@

board: .venv/.ready .venv-board/.ready
	@BABYVLM_BOARD_PYTHON="$(CURDIR)/.venv-board/bin/python" $(BIN)/python -m pytest tests/test_leaderboard.py -q -rs

hooks: .venv/.ready
	$(BIN)/nbdev_install_hooks

clean:
	rm -rf _proc _docs _site _runs .pytest_cache
