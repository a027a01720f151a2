# Everything a newcomer or CI types. PYTHON chooses the interpreter that the virtual environment is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TESTABLE := $(VENV)/testable
FUZZABLE := $(VENV)/fuzzable
FUZZ_SECONDS ?= 60
CRASH_KILLS ?= 2000
WEBHOOK_KILLS ?= 100
DEEP_MESSAGES ?= 1000000
DEV := etc/dev.ini

.PHONY: help run test test-clients fuzz crash crash-webhooks amqp lint bench bench-idle bench-latency bench-large bench-suppressions bench-deep bench-fair bench-webhooks reference clean

help:
	@echo "make run                  start a daemon for trying out: etc/dev.ini, mail is captured"
	@echo "make test                 all tests"
	@echo "make test-clients         real mail clients, by the code of docs/clients.md; installs what they need"
	@echo "make fuzz                 each parser under atheris for FUZZ_SECONDS (60)"
	@echo "make crash                the crash ledger: CRASH_KILLS (2000) deaths of the daemon; CRASH_SEED repeats a run"
	@echo "make amqp                 events of 10,000 messages at a real RabbitMQ, which is killed in between"
	@echo "make crash-webhooks       a daemon with a webhook dies WEBHOOK_KILLS (100) times at each of two moments"
	@echo "make lint                 ruff and mypy"
	@echo "make reference            etc/mta.ini, docs/configuration.md and docs/metrics.md, from what the program declares"
	@echo "make clean                the virtual environment and what was built"
	@echo "make bench                messages per second, end to end"
	@echo "make bench-idle           10,000 idle connections: memory for each, and how long another client waits"
	@echo "make bench-deep           a queue of DEEP_MESSAGES (1000000): memory, first delivery, new mail, the tools"
	@echo "make bench-suppressions   a list of 1,000,000: bringing it in, holding it, asking it"
	@echo "make bench-webhooks       what a webhook costs the mail"
	@echo "make bench-latency        messages per second on one connection over 50 ms"
	@echo "make bench-fair           one project's few messages beside another one's backlog"
	@echo "make bench-large          a message of 50 MB: how much the daemon's memory grows"

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(TESTABLE): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# The first run makes the project `demo` and prints its token, once.
run: $(INSTALLED)
	@$(BIN)/lettermta-admin -c $(DEV) project show demo >/dev/null 2>&1 || { \
	  $(BIN)/lettermta-admin -c $(DEV) project create demo && \
	  $(BIN)/lettermta-admin -c $(DEV) route update --project demo outgoing --transport capture && \
	  token=$$($(BIN)/lettermta-admin -c $(DEV) token create --project demo --name "make run") && \
	  echo "The token of project demo, shown this once:" && echo "$$token"; }
	exec $(BIN)/twistd -n --pidfile= lettermta -c $(DEV)

test: $(TESTABLE)
	$(BIN)/python -b -m pytest

# Languages and libraries of all kinds: too much for every run of the tests.
test-clients: $(TESTABLE)
	$(BIN)/python -b -m pytest clients

$(FUZZABLE): $(TESTABLE)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@

# What it finds is left in build/fuzz; an input that broke something belongs into fuzz/corpus once that is mended.
fuzz: $(FUZZABLE)
	@for target in $$($(BIN)/python -m fuzz); do \
	  echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  $(BIN)/python -m fuzz $$target --seconds $(FUZZ_SECONDS) || exit 1; \
	done

# Writes its table into the page when nothing was lost.
crash: $(TESTABLE)
	$(BIN)/python -m crash --kills $(CRASH_KILLS) $(if $(CRASH_SEED),--seed $(CRASH_SEED)) --write docs/durability.md

# Every event of 10,000 messages at a real RabbitMQ, once, in order; and none lost when it is killed in between.
amqp: $(TESTABLE)
	LETTERMTA_AMQP_MESSAGES=10000 $(BIN)/python -b -m pytest tests/system/test_amqp.py

# A daemon with a webhook dies WEBHOOK_KILLS times at each of two moments.
crash-webhooks: $(TESTABLE)
	WEBHOOK_KILLS=$(WEBHOOK_KILLS) $(BIN)/python -b -m pytest tests/system/test_webhooks.py -k "moment_of_a_kill"

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TESTABLE)
	$(BIN)/python bench/relay.py

bench-idle: $(TESTABLE)
	$(BIN)/python bench/idle.py

# What a webhook that gets every event costs the mail; fails when that is more than a quarter.
bench-webhooks: $(TESTABLE)
	$(BIN)/python bench/webhooks.py

bench-latency: $(TESTABLE)
	$(BIN)/python bench/latency.py

bench-large: $(TESTABLE)
	$(BIN)/python bench/large.py

bench-fair: $(TESTABLE)
	$(BIN)/python bench/fair.py

# Takes some 14 GB of disk for a million messages, where TMPDIR says.
bench-deep: $(TESTABLE)
	$(BIN)/python bench/deep.py --messages $(DEEP_MESSAGES) $(DEEP_OPTIONS)

bench-suppressions: $(TESTABLE)
	$(BIN)/python bench/suppressions.py

# What is derived from the configuration's schema.
reference: $(TESTABLE)
	$(BIN)/python -m lettermta.config ini > etc/mta.ini
	$(BIN)/python -m lettermta.config markdown > docs/configuration.md
	$(BIN)/python -m lettermta.metrics > docs/metrics.md

clean:
	rm -rf $(VENV) build dist *.egg-info
