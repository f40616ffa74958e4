# Two commands on a fresh machine: `make run` and `make test`. They need python3 and make, and use uv when it is there.
#   make run PORT=9000      any setting of .env, for this one time
#   make test PYTEST_ARGS='-k stream'
#   make setup PYTHON=python3.12      VENV=folder: another place for the environment

PYTHON ?= python3
VENV := .venv
ARGS :=
PYTEST_ARGS :=
FILE :=
SOAK := 600
MODEL :=

SUITES := test-basic test-tools test-custom test-gemini test-calculator test-comparison test-performance

py := $(VENV)/bin/python
uv := $(shell uv --version 2>/dev/null)
pip := $(py) -m pip install -qq --disable-pip-version-check
# Only our own .venv may be emptied; somebody's VENV is added to.
own := $(filter .venv,$(VENV))
# The set-up is done again when setup.py, the interpreter or the place of the checkout is another one.
key := $(shell "$(PYTHON)" -c 'import hashlib, os, sys; print(hashlib.sha256("\n".join([open("setup.py").read(), sys.version, os.getcwd()]).encode()).hexdigest()[:12])')
installed := $(VENV)/.installed-$(key)

.DEFAULT_GOAL := help
.PHONY: help setup run stop restart dev test test-unittest $(SUITES) test-engines test-cov test-cov-html perf bench lint format types token-report soak zipapp clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(installed) .env models.yaml  ## create .venv, install, copy .env and models.yaml from the examples if absent

run: setup  ## start the proxy in the background and say how to connect Claude Code
	@$(py) -m ccproxy start $(ARGS)
	@echo 'make stop ends it; make restart takes a new version of the code.'

stop:  ## stop the proxy that make run started
	@if [ -x $(py) ]; then $(py) -m ccproxy stop; else echo 'ccproxy is not running'; fi

restart: setup  ## stop and run
	@$(py) -m ccproxy stop
	@$(py) -m ccproxy start $(ARGS)

dev: setup  ## run the proxy in the foreground; a change of its code starts it again
	@$(py) -m ccproxy serve --reload $(ARGS)

test: setup  ## run the whole test suite
	$(py) -m pytest -n auto $(PYTEST_ARGS)

test-engines: setup  ## run the tests against a real engine (downloads 160 MB, once)
	CCPROXY_ENGINES=1 $(py) -m pytest -m engines $(PYTEST_ARGS)

# Suites by name: against the scripted provider, or with MODEL=deepseek/deepseek-chat against a real model.
test-basic:  ## plain requests
test-tools:  ## every tool of Claude Code
test-custom:  ## models of models.yaml (MODEL=deepseek/deepseek-chat: a real one)
test-gemini:  ## Gemini (MODEL=gemini/gemini-2.5-flash: the real one)
test-calculator:  ## a small agent
test-comparison:  ## the official API's answers beside ours; asks it when ANTHROPIC_API_KEY is set
test-performance:  ## many requests, long ones, and the same both ways
$(SUITES): setup
	CCPROXY_TEST_MODEL='$(MODEL)' $(py) -m pytest tests/suites/test_$(@:test-%=%).py $(PYTEST_ARGS)

test-unittest: setup  ## all suites, without pytest
	CCPROXY_TEST_MODEL='$(MODEL)' $(py) -m unittest

test-cov: setup  ## run the whole test suite with coverage
	$(py) -m pytest -n auto --cov --cov-report=term $(PYTEST_ARGS)

test-cov-html: setup  ## the same, as pages in htmlcov/
	$(py) -m pytest -n auto --cov --cov-report=html $(PYTEST_ARGS)

perf: setup  ## measure a model directly and through the proxy (ARGS='--model_id deepseek/deepseek-chat')
	@$(py) -m ccproxy perf $(ARGS)

bench: setup  ## measure what ccproxy itself costs, beside a relay of bytes (ARGS=--json; two minutes)
	@PYTHONPATH=. $(py) tests/bench.py $(ARGS)

lint: $(installed)  ## check style and formatting
	$(py) -m ruff check .
	$(py) -m ruff format --check .

format: $(installed)  ## mend what lint can mend
	$(py) -m ruff check --fix .
	$(py) -m ruff format .

types: $(installed)  ## check types
	$(py) -m mypy

token-report: setup  ## compare estimates with recorded token counts (FILE=counts.jsonl: with others)
	@PYTHONPATH=. $(py) tests/token_counts.py $(FILE)

# Wheels of the oldest Python, whose own code is all that is kept: every newer one can run it, on any machine.
zipapp: $(installed)  ## build dist/ccproxy.pyz: one file that needs python3 and nothing else
	@rm -rf build/zipapp build/wheels
	@mkdir -p build/zipapp dist
	@# Not install: where the index does not tell which Python a release is for, it goes by the one that runs pip.
	@$(py) -m pip download -qq --disable-pip-version-check --dest build/wheels --python-version 3.9 --only-binary :all: requests sseclient-py PyYAML python-dotenv
	@for wheel in build/wheels/*.whl; do $(py) -m zipfile -e "$$wheel" build/zipapp || exit 1; done
	@cp -R ccproxy build/zipapp/
	@find build/zipapp \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
	@printf 'import sys\n\nfrom ccproxy.cli import main\n\nsys.exit(main())\n' > build/zipapp/__main__.py
	@$(py) -m zipapp build/zipapp --compress --python '/usr/bin/env python3' --output dist/ccproxy.pyz
	@echo 'Built dist/ccproxy.pyz.'

soak: setup  ## run mixed traffic, faults, reloads and worker kills (SOAK=seconds; ten minutes unless told)
	@PYTHONPATH=. $(py) tests/soak.py $(SOAK)

clean:  ## remove all that make created, but not .env and models.yaml
	-@$(MAKE) --no-print-directory stop
	rm -rf .venv .run build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find ccproxy tests -name __pycache__ -prune -exec rm -rf {} +

# pip of 2020 and before, which the first releases of Python 3.9 bring, finds no wheel of tiktoken and tries to compile it.
$(installed):
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 9) and "ccproxy needs Python 3.9 or newer; $(PYTHON) is %d.%d. Another one: make PYTHON=python3.12" % v)'
	@echo 'Installing ccproxy and what it needs in $(VENV); about a minute, the first time.'
ifdef uv
	@uv venv --quiet --seed --python "$(PYTHON)" $(if $(own),--clear,--allow-existing) $(VENV)
	@uv pip install --quiet --compile-bytecode --python $(py) --editable '.[offline,dev]'
else
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot create environments: install python3-venv (Debian, Ubuntu) or uv, then try again.' >&2; exit 1; }
	@"$(PYTHON)" -m venv $(if $(own),--clear) $(VENV)
	@$(pip) 'pip>=23'
	@$(pip) --editable '.[offline,dev]'
endif
	@$(py) -m compileall -q ccproxy
	@rm -f $(VENV)/.installed-*
	@touch $@

# Once copied they are the owner's: a newer example never overwrites them. They hold keys, so nobody else may read them.
.env models.yaml:
	@umask 077 && cp $@.example $@ && echo 'Created $@ from $@.example.'
