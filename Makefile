# Each target sets up what it needs, which is quick if it is already there. `make` alone lists the targets.
# ARGS are passed on: make demo ARGS="--duration 60"

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
FAMILY ?= mariadb
SECONDS ?= 60
SEED ?=
# Only pictures need matplotlib, which is large.
REPORT := $(if $(filter --plot%,$(ARGS)),.venv/.tools,.venv/.run)

.PHONY: help run demo api report test endure clusters containers soak bench lint sbom clean ahead server

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: .venv/.run server ## capture the trades of SYMBOLS from Binance until Ctrl-C
	@exec $(BIN)/python ws_client.py $(ARGS)

demo: .venv/.demo server ## capture from the stand-in exchange, with a dashboard: no internet needed, its own database
	@exec $(BIN)/python -m tools.demo $(ARGS)

api: .venv/.demo server ## REST API and live dashboard of the captured trades (ARGS="--demo": those of the demo)
	@exec $(BIN)/python -m tools.api $(ARGS)

report: $(REPORT) server ## latest price, price at a second, low and high of a range
	@exec $(BIN)/python query_examples.py $(ARGS)

test: ahead .venv/.dev server ## the tests, on MariaDB and MySQL, or on the server in MYSQL_*; ARGS="-m 'not slow'"
	@test -n "$$MYSQL_HOST$$MYSQL_UNIX_SOCKET" || tests/fetch_mysql.sh
	@tests/fetch_debian.sh usr/bin/promtool prometheus
	@tests/fetch_debian.sh usr/bin/influxd influxdb
	@tests/fetch_debian.sh usr/bin/mariadb-dump mariadb-client
	@tests/fetch_debian.sh usr/sbin/logrotate logrotate libpopt0
	@tools/setup.sh postgres
	@tools/setup.sh browser
	$(if $(ARGS),,@echo "Running all of the tests (about 15 min on two cores) ..." >&2)
	@exec $(BIN)/python -m pytest -rs -n 2 --dist loadfile \
	    $(if $(ARGS),$(ARGS),-m "not heavy and not second and not clusters and not containers")

endure: .venv/.dev server ## what `make test` leaves out: tests that take minutes, and on MySQL those that were run on MariaDB
	@exec $(BIN)/python -m pytest -rs -n 2 --dist loadfile -m "heavy or second" $(ARGS)

clusters: .venv/.dev server ## the tests on Galera, group replication and Spider, three servers each, whose nodes are killed
	@tests/fetch_mysql.sh
	@tests/fetch_clusters.sh
	@exec $(BIN)/python -m pytest -rs -s -m clusters tests/clusters $(ARGS)

containers: .venv/.dev server ## the tests of the image, which podman and buildah build without a registry, on Debian as root
	@tests/build_image.sh
	@exec $(BIN)/python -m pytest -rs -m containers tests/deploy $(ARGS)

soak: .venv/.demo server ## capture while everything around it fails, then compare every trade; SECONDS=600 SEED=7 FAMILY=mysql
	@test $(FAMILY) != mysql || tests/fetch_mysql.sh
	@exec $(BIN)/python -m tools.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --family $(FAMILY) $(ARGS)

bench: .venv/.demo server ## measure speed, latency and memory against their bounds; FAMILY=mysql, ARGS="ingest latency queries …"
	@test $(FAMILY) != mysql || tests/fetch_mysql.sh
	@exec $(BIN)/python -m tools.bench --family $(FAMILY) --json .cache/bench-$(FAMILY).json $(ARGS)

lint: .venv/.dev ## ruff and mypy, and what is known against the packages, where that can be asked
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.support.supply audit

sbom: .venv/.dev ## lists of all packages that are used (CycloneDX), in .cache/sbom
	@$(BIN)/python -m tests.support.supply sbom .cache/sbom

clean: ## remove the virtual environment and the caches, but never data/
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +

ahead:
	@test -e .venv/.dev || echo "First the set-up (about 3 min, 2.5 GB), then the tests (about 15 min on two cores)." >&2

server:
	@tools/setup.sh server

# Each stamp is newer than the packages it stands for. A link to a Python that is gone counts as missing.
$(BIN)/python:
	@tools/setup.sh venv "$(PYTHON)"

.venv/.run: requirements.txt $(BIN)/python
	@tools/setup.sh packages $<
	@touch $@

.venv/.demo: requirements-demo.txt requirements.txt $(BIN)/python
	@tools/setup.sh packages $<
	@touch .venv/.run $@

.venv/.tools: requirements-tools.txt requirements-demo.txt requirements.txt $(BIN)/python
	@tools/setup.sh packages $<
	@touch .venv/.run .venv/.demo $@

.venv/.dev: requirements-dev.txt requirements-tools.txt requirements-demo.txt requirements.txt $(BIN)/python
	@tools/setup.sh packages $<
	@touch .venv/.run .venv/.demo .venv/.tools $@
