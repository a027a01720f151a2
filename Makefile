# Everything a newcomer or CI types. PYTHON chooses the interpreter that the virtual environment is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TESTABLE := $(VENV)/testable
DEV := etc/dev.ini

.PHONY: help run test lint bench reference clean

help:
	@echo "make run     start a daemon for trying out: etc/dev.ini, mail is captured"
	@echo "make test    all tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   messages per second, end to end"

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(TESTABLE): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# The first run makes the project `demo` and prints its token, once.
run: $(INSTALLED)
	@$(BIN)/lettermta-admin -c $(DEV) project show demo >/dev/null 2>&1 || ( \
	  $(BIN)/lettermta-admin -c $(DEV) project create demo 2>/dev/null && \
	  $(BIN)/lettermta-admin -c $(DEV) route update --project demo outgoing --transport capture 2>/dev/null && \
	  echo "The token of project demo, shown this once:" && \
	  $(BIN)/lettermta-admin -c $(DEV) token create --project demo --name "make run" 2>/dev/null )
	exec $(BIN)/twistd -n --pidfile= lettermta -c $(DEV)

test: $(TESTABLE)
	$(BIN)/python -b -m pytest

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TESTABLE)
	$(BIN)/python bench/relay.py

# What is derived from the configuration's schema.
reference: $(TESTABLE)
	$(BIN)/python -m lettermta.config ini > etc/mta.ini
	$(BIN)/python -m lettermta.config markdown > docs/configuration.md

clean:
	rm -rf $(VENV) build dist *.egg-info
