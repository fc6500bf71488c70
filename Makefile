# Each target sets up what it needs, which is quick if it is already there. `make` alone lists the targets.
# ARGS are passed on: make demo ARGS="--duration 60"

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
FAMILY ?= mariadb
SECONDS ?= 60
SEED ?=

.PHONY: help run demo api report test soak bench lint clean server

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: .venv/.run server ## capture the trades of SYMBOLS from Binance until Ctrl-C
	@exec $(BIN)/python ws_client.py $(ARGS)

demo: .venv/.demo server ## capture from the stand-in exchange, with a dashboard: no internet needed, its own database
	@exec $(BIN)/python -m tools.demo $(ARGS)

api: .venv/.demo server ## REST API and live dashboard of the captured trades (ARGS="--demo": those of the demo)
	@exec $(BIN)/python -m tools.api $(ARGS)

report: .venv/.run server ## latest price, price at a second, lowest and highest price in a range
	@exec $(BIN)/python query_examples.py $(ARGS)

test: .venv/.dev server ## the tests, on MariaDB and MySQL, or on the server in MYSQL_*; ARGS="-m 'not slow'"
	@test -n "$$MYSQL_HOST$$MYSQL_UNIX_SOCKET" || tests/fetch_mysql.sh
	@tools/setup.sh postgres
	@tools/setup.sh browser
	@echo "Running the tests; all of them take about 8 minutes on two cores ..." >&2
	@exec $(BIN)/python -m pytest -rs -n 2 --dist loadfile $(ARGS)

soak: .venv/.demo server ## capture while everything around it fails, then compare every trade; SECONDS=600 SEED=7 FAMILY=mysql
	@test $(FAMILY) != mysql || tests/fetch_mysql.sh
	@exec $(BIN)/python -m tools.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --family $(FAMILY) $(ARGS)

bench: .venv/.demo server ## measure speed, latency and memory against their bounds; FAMILY=mysql, ARGS="ingest latency queries …"
	@test $(FAMILY) != mysql || tests/fetch_mysql.sh
	@exec $(BIN)/python -m tools.bench --family $(FAMILY) --json .cache/bench-$(FAMILY).json $(ARGS)

lint: .venv/.dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .

clean: ## remove the virtual environment and the caches, but never data/
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +

server:
	@tools/setup.sh server

# Each stamp is newer than the packages it stands for. A link to a Python that is gone counts as missing.
$(BIN)/python:
	@tools/setup.sh venv "$(PYTHON)"

.venv/.run: requirements.txt $(BIN)/python
	@tools/setup.sh packages requirements.txt
	@touch $@

.venv/.demo: requirements-demo.txt requirements.txt $(BIN)/python
	@tools/setup.sh packages requirements-demo.txt
	@touch .venv/.run $@

.venv/.dev: requirements-dev.txt requirements-tools.txt requirements-demo.txt requirements.txt $(BIN)/python
	@tools/setup.sh packages requirements-dev.txt
	@touch .venv/.run .venv/.demo $@
