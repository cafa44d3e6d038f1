# One entry point: `make help` lists what there is.
#
# .venv holds the operator's Python, exactly as requirements.txt says, with the collection importable in place. The
# development tools have a venv of their own, .cache/dev. Nothing needs to be activated or installed by hand.

# ---- values: make up CLUSTER=second PORT_BASE=10200 NOTEBOOK_PORT=8889 -------------------------------------------------

# Not given: as the inventory says, else as the cluster remembers, else the default.
CLUSTER ?=
PORT_BASE ?=
NOTEBOOK_PORT ?=
INVENTORY ?= inventory/local
# Further arguments of ansible-playbook, molecule, pytest or uv, as the shell reads them.
ARGS ?=
# Of status: json, or nothing for a text.
FORMAT ?=
# Makes .venv where there is none.
PYTHON ?= python3
SCENARIO ?= local
# Names below benchmarks/, without .py, each with a part of it if not all is wanted (hosts/noop); none: all.
BENCH ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# ---- the cluster ----------------------------------------------------------------------------------------------------

# Values reach Ansible as JSON, so that any text arrives whole, and is judged by the playbook.
export MAKE_CLUSTER := $(value CLUSTER)
export MAKE_PORT_BASE := $(value PORT_BASE)
export MAKE_NOTEBOOK_PORT := $(value NOTEBOOK_PORT)
export MAKE_INVENTORY := $(value INVENTORY)
define MAKE_EXTRA_VARS
import json, os, sys
names = {
    "cluster": "MAKE_CLUSTER",
    "ipyparallel_controller_port_base": "MAKE_PORT_BASE",
    "ipyparallel_notebook_port": "MAKE_NOTEBOOK_PORT",
}
given = {name: os.environ[variable] for name, variable in names.items() if os.environ[variable]}
for name, text in given.items():
    if name != "cluster" and text.isdecimal():
        given[name] = int(text)
given.update(argument.split("=", 1) for argument in sys.argv[1:])
print(json.dumps(given))
endef
export MAKE_EXTRA_VARS

# $(call play,PLAYBOOK,further variables as NAME=VALUE)
play = vars=$$($(BIN)/python -c "$$MAKE_EXTRA_VARS" $(2)) && \
	$(BIN)/ansible-playbook --inventory "$$MAKE_INVENTORY" --extra-vars "$$vars" $(ARGS) playbooks/$(1).yml

.PHONY: up
up: .venv/.stamp ## Deploy the cluster and start it; again: change what differs
	@$(call play,site)

.PHONY: connect
connect: .venv/.stamp ## Write the connector into this account's IPython profile
	@$(call play,connect)

.PHONY: disconnect
disconnect: .venv/.stamp ## Remove it, and the SSH tunnel
	@$(call play,disconnect)

.PHONY: status
status: .venv/.stamp ## Show engines, hosts, queue, versions and URL (FORMAT=json)
ifeq ($(FORMAT),)
	@$(call play,status)
else ifeq ($(FORMAT),json)
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && \
	code=0; { $(call play,status,ipyparallel_status_file="$$directory/status.json") || code=$$?; } >&2; \
	test ! -s "$$directory/status.json" || cat "$$directory/status.json"; exit $$code
else
	@echo "make: FORMAT=$(FORMAT) is unknown: give json, or nothing for a text" >&2; exit 2
endif

.PHONY: logs
logs: .venv/.stamp ## Bring the logs of all processes here, into logs/NAME
	@$(call play,logs)

.PHONY: verify
verify: .venv/.stamp ## Try every operation of a client on the running cluster
	@$(call play,verify)

.PHONY: down
down: .venv/.stamp ## Stop the cluster's processes; all files stay
	@$(call play,stop)

.PHONY: start
start: .venv/.stamp ## Start them again
	@$(call play,start)

.PHONY: destroy
destroy: .venv/.stamp ## Remove the cluster; the notebooks stay
	@$(call play,destroy)

# ---- tests ----------------------------------------------------------------------------------------------------------

# What the tests start sees the development tools, and nothing of this make: they call make themselves.
unexport CLUSTER PORT_BASE NOTEBOOK_PORT INVENTORY ARGS FORMAT SCENARIO BENCH
in_dev = env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL PATH="$$(pwd -P)/$(DEV)/bin:$$PATH" HYPOTHESIS_STORAGE_DIRECTORY=.cache/hypothesis

# The scenarios that `make test` runs, one after the other; each is a directory of molecule/.
SCENARIOS := local default

.PHONY: test
test: .cache/dev/.stamp ## Run everything that follows
	@tests/run.sh lint unit sanity $(SCENARIOS:%=molecule-%)

LINTS := lint-ruff lint-mypy lint-yaml lint-shell lint-changelog lint-ansible
.PHONY: lint
lint: .cache/dev/.stamp ## Run ruff, mypy, yamllint, shellcheck and ansible-lint
	@$(MAKE) --jobs=2 --keep-going --output-sync=target $(LINTS)

.PHONY: $(LINTS)
$(LINTS): .cache/dev/.stamp
lint-ruff:
	@echo "ruff"; $(DEV)/bin/ruff check --quiet --output-format=concise . && $(DEV)/bin/ruff format --quiet --diff .
# mypy takes names from paths, and the collection's name is not in its path.
lint-mypy:
	@echo "mypy"; mkdir -p .cache/tree/ansible_collections/ipyparallel && \
	ln -sfn "$$(pwd -P)" .cache/tree/ansible_collections/ipyparallel/cluster && \
	found=$$($(DEV)/bin/mypy --no-error-summary --package ansible_collections.ipyparallel.cluster.plugins) || \
	{ echo "$$found" | sed 's|^.cache/tree/ansible_collections/ipyparallel/cluster/||'; exit 1; }
lint-yaml:
	@echo "yamllint"; $(DEV)/bin/yamllint --strict .
lint-shell:
	@echo "shellcheck"; $(DEV)/bin/shellcheck .ci/run $$(git ls-files --cached --others --exclude-standard '*.sh')
lint-changelog:
	@echo "antsibull-changelog"; $(in_dev) antsibull-changelog lint
lint-ansible:
	@echo "ansible-lint"; $(in_dev) ansible-lint --nocolor -q

.PHONY: unit
unit: .cache/dev/.stamp ## Run the unit tests
	@$(in_dev) pytest -o cache_dir=.cache/pytest $(ARGS)

.PHONY: sanity
sanity: .cache/dev/.stamp ## Run ansible-test sanity
	@tests/sanity.sh $(ARGS)

.PHONY: molecule
molecule: .cache/dev/.stamp ## Run a scenario on real nodes (SCENARIO=local)
	@test -d 'molecule/$(SCENARIO)' || { \
	echo "make: there is no scenario $(SCENARIO); there are: $(patsubst molecule/%/molecule.yml,%,$(wildcard molecule/*/molecule.yml))" >&2; exit 2; }
	@$(in_dev) MOLECULE_GLOB='molecule/*/molecule.yml' molecule test --no-command-borders --scenario-name '$(SCENARIO)' $(ARGS)
molecule-%:
	@$(MAKE) molecule SCENARIO='$*'

.PHONY: lab
lab: ## Start three Debian nodes: make up INVENTORY=.cache/lab/lab/inventory.yml
	@'$(PYTHON)' molecule/shared/lab.py up $(ARGS)

.PHONY: lab-down
lab-down: ## Remove them
	@'$(PYTHON)' molecule/shared/lab.py down $(ARGS)

.PHONY: bench
bench: .cache/dev/.stamp ## Measure what the README claims (BENCH=name or BENCH=hosts/part)
	@for name in $(or $(BENCH),$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py))); do \
	$(in_dev) python "benchmarks/$${name%%/*}.py" $$(case "$$name" in (*/*) echo "--only $${name#*/}";; esac) $(ARGS) || exit; done

# ---- the house ------------------------------------------------------------------------------------------------------

.PHONY: venv
venv: .venv/.stamp ## Make .venv, the operator's Python; all of the above does it by itself
	@:

.PHONY: dev
dev: .cache/dev/.stamp ## Make .cache/dev, the same with the development tools
	@:

.PHONY: lock
lock: .venv/.stamp ## Compile the lock files from *.in (ARGS=--upgrade: to the newest versions)
	@set -e; export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	compile() { $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url $(ARGS) "$$@"; }; \
	compile --python-version 3.10 roles/environment/files/uv.in --output-file $(UV_LOCK); \
	compile --python-version 3.10 roles/environment/files/requirements.in --output-file roles/environment/files/requirements.txt; \
	compile --python-version 3.11 requirements.in --output-file requirements.txt; \
	compile --python-version 3.11 requirements-dev.in --output-file requirements-dev.txt

.PHONY: clean
clean: ## Remove what make has made in this directory; clusters stay
	@rm -rf .venv .cache build .ansible

.PHONY: help
help: ## Show this
	@echo "make WHAT [CLUSTER=name] [PORT_BASE=port] [NOTEBOOK_PORT=port] [INVENTORY=path] [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---- python environments --------------------------------------------------------------------------------------------

BIN := .venv/bin
DEV := .cache/dev
UV_LOCK := roles/environment/files/uv.txt
# With the system's certificate authorities, as pip uses them, instead of uv's own.
UV := $(BIN)/uv --system-certs --no-progress

# A venv is bound to its path and its interpreter: its stamp, written last, names both. One whose stamp is missing or
# names others (an interrupted creation, a moved directory, an upgraded Python) is made anew; a new lock is synced.
identity = $$(readlink -f $(1)/bin/python) $$(pwd -P)/$(1)
is_sound = $(shell test -x $(1)/bin/python && test "$(call identity,$(1))" = "$$(cat $(1)/.stamp 2>/dev/null)" && echo yes)
# The collection is importable in place by a link to this directory; then the stamp.
finish = collections=$$(echo $(1)/lib/python3.*/site-packages/ansible_collections) && mkdir -p "$$collections/ipyparallel" && \
	ln -sfn "$$(pwd -P)" "$$collections/ipyparallel/cluster" && echo "$(call identity,$(1))" > $(1)/.stamp

# uv does not read pip's settings either: an index that only pip was told of is passed on.
uv_sync = index=$$($(BIN)/python -m pip config list | sed -n "s/^\(:env:\|global\|install\)[.]index-url='\(.*\)'$$/\2/p" | head -n 1); \
	if [ -n "$$index" ] && [ -z "$$UV_INDEX_URL" ]; then export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; fi; \
	$(UV) pip sync --quiet --python $(1)/bin/python --require-hashes $(2) >&2 || $(call unreachable,uv)
unreachable = { echo "make: $(1) could not install what the lock names (see above)." \
	"Without PyPI in reach, name a mirror: PIP_INDEX_URL=https://... make ..." >&2; exit 1; }

.venv/.stamp: requirements.txt $(UV_LOCK) $(if $(call is_sound,.venv),,new-venv)
	@rm -f $@
	@echo "Installing into .venv what requirements.txt says" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(UV_LOCK) >&2 || \
	$(call unreachable,pip)
	@$(call uv_sync,.venv,requirements.txt)
	@$(call finish,.venv)

.cache/dev/.stamp: requirements.txt requirements-dev.txt .venv/.stamp $(if $(call is_sound,.cache/dev),,new-dev)
	@rm -f $@
	@echo "Installing into .cache/dev what requirements.txt and requirements-dev.txt say" >&2
	@$(call uv_sync,.cache/dev,requirements.txt requirements-dev.txt)
	@$(call finish,.cache/dev)

.PHONY: new-venv
new-venv: prerequisites
	@rm -rf .venv
	@'$(PYTHON)' -m venv .venv >&2

.PHONY: new-dev
new-dev: .venv/.stamp
	@rm -rf $(DEV)
	@$(UV) venv --quiet --python "$$(readlink -f $(BIN)/python)" $(DEV) >&2

.PHONY: prerequisites
prerequisites:
	@command -v git >/dev/null || { \
	echo "make: git is missing: install it (Debian package git)" >&2; exit 1; }
	@command -v '$(PYTHON)' >/dev/null || { \
	echo "make: $(PYTHON) is missing: install Python 3.11 or newer (Debian package python3), or name one: PYTHON=path" >&2; exit 1; }
	@found=$$('$(PYTHON)' -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))') || { \
	echo "make: $(PYTHON) is Python $$found, too old: install 3.11 or newer (package python3 of Debian 12 and later), or name one: PYTHON=path" >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "make: $(PYTHON) cannot make virtual environments: install its venv module (Debian package python3-venv)" >&2; exit 1; }
