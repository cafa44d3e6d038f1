# One entry point: `make help` lists what there is. Values are given as `make up CLUSTER=second PORT_BASE=10200`.
#
# .venv holds the operator's Python, exactly as requirements.txt says. Development tools have a venv of their own, .cache/dev.
# Nothing needs to be activated or installed by hand, and nothing outside this directory is touched but uv's and pip's caches.

# ---- values ---------------------------------------------------------------------------------------------------------
CLUSTER ?=
PORT_BASE ?=
NOTEBOOK_PORT ?=
INVENTORY ?= inventory/local
ARGS ?=
FORMAT ?=
PYTHON ?= python3
SCENARIO ?= local

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# ---- python environments --------------------------------------------------------------------------------------------
# uv reads neither pip's settings nor the system's certificate authorities unless told so.
export UV_SYSTEM_CERTS := true
export UV_NO_PROGRESS := true

VENV := .venv
DEV := .cache/dev
BIN := $(VENV)/bin
UV_LOCK := roles/environment/files/uv.txt
CLUSTER_LOCK := roles/environment/files/requirements.txt

# A venv is bound to its path and its interpreter: the stamp in it, written last, names both. One whose stamp is missing or
# names others (an interrupted creation, a moved directory, an upgraded Python) is made anew; with a newer lock it is synced.
identity = $$(readlink -f $(1)/bin/python) $$(pwd -P)/$(1)
sound = $(shell test -x $(1)/bin/python && test "$$(cat $(1)/.stamp 2>/dev/null)" = "$(call identity,$(1))" && echo yes)
importable = d=$$(echo $(1)/lib/python3.*/site-packages/ansible_collections) && mkdir -p "$$d/ipyparallel" && \
	ln -sfn "$$(pwd -P)" "$$d/ipyparallel/cluster"

$(VENV)/.stamp: requirements.txt $(UV_LOCK) $(if $(call sound,$(VENV)),,anew-venv)
	@rm -f $@
	@echo "Making $(VENV) as requirements.txt says" >&2
	@test -x $(BIN)/uv || $(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: -r $(UV_LOCK) >&2
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.txt >&2
	@$(call importable,$(VENV))
	@echo "$(call identity,$(VENV))" > $@

.PHONY: anew-venv
anew-venv: prerequisites
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >&2

.PHONY: prerequisites
prerequisites:
	@command -v git >/dev/null || { echo "make: git is missing: install it (Debian package git)" >&2; exit 1; }
	@command -v '$(PYTHON)' >/dev/null || { echo "make: $(PYTHON) is missing: install Python 3.11 or newer (Debian package python3), or name one with PYTHON=" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("make: $(PYTHON) is Python %d.%d, but the operator needs 3.11 or newer (Debian 12 and later: package python3): name one with PYTHON=" % v[:2])'
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module with pip: install it (Debian package python3-venv)" >&2; exit 1; }

$(DEV)/.stamp: requirements.txt requirements-dev.txt $(VENV)/.stamp $(if $(call sound,$(DEV)),,anew-dev)
	@rm -f $@
	@echo "Making $(DEV) as requirements.txt and requirements-dev.txt say" >&2
	@$(BIN)/uv pip sync --quiet --python $(DEV)/bin/python --require-hashes requirements.txt requirements-dev.txt >&2
	@$(call importable,$(DEV))
	@echo "$(call identity,$(DEV))" > $@

.PHONY: anew-dev
anew-dev: $(VENV)/.stamp
	@rm -rf $(DEV)
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(DEV) >&2

.PHONY: venv
venv: $(VENV)/.stamp ## Make .venv, the operator's Python (all that follows does so by itself)
	@:

.PHONY: dev
dev: $(DEV)/.stamp ## Make .cache/dev, the same with the development tools
	@:

.PHONY: lock
lock: $(VENV)/.stamp ## Compile the lock files anew (ARGS=--upgrade: to the newest versions)
	@export UV_CUSTOM_COMPILE_COMMAND="make lock"; set -e; \
	compile() { $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url $(ARGS) "$$@"; }; \
	compile --python-version 3.10 roles/environment/files/uv.in -o $(UV_LOCK); \
	compile --python-version 3.10 roles/environment/files/requirements.in -o $(CLUSTER_LOCK); \
	compile --python-version 3.11 requirements.in -o requirements.txt; \
	compile --python-version 3.11 requirements-dev.in -o requirements-dev.txt

# ---- help -----------------------------------------------------------------------------------------------------------
.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
