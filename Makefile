# `make` lists the targets. Needs git, make and Python >= 3.11 with venv; everything else lands in .venv.
PY := .venv/bin/python
UV := VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
# uv trusts the system's certificates where there are any (a company's own authority), else the ones it carries.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
	/etc/ssl/cert.pem),true,false)
# Two workers on two cores; a file's tests stay together, so that module fixtures are built once.
PYTEST_ARGS ?= -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo run test fuzz check bench bench-peers schema lock

help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create .venv and install what is locked (fast when nothing changed)
	@PYTHON="$(PYTHON)" sh tools/setup.sh

demo: setup ## Send mail through the whole gateway on this machine and show it (HIDE=1: the receiver hides one message; it must fail)
	@$(PY) -m demo $(if $(HIDE),--hide)

run: setup ## Run the gateway as config/gateway.toml says
	@.venv/bin/gateway run

test: setup ## Run all tests (PYTEST_ARGS="-k name" for some)
	@$(PY) -m pytest $(PYTEST_ARGS)

fuzz: setup ## Send the API requests that nobody wrote, for minutes; a failure says how to repeat it (EXAMPLES=100 SEED=random)
	@FUZZ_SEED=$(or $(SEED),random) FUZZ_EXAMPLES=$(or $(EXAMPLES),100) $(PY) -m pytest tests/contract/test_fuzz.py

check: setup ## Lint, format, types, import layers and the house rules, without changing a file
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/basedpyright
	.venv/bin/lint-imports
	$(PY) -m pytest -q tests/arch

bench: setup ## Measure this gateway: messages per second and per CPU-second
	@$(PY) -m bench

bench-peers: setup ## Measure this gateway beside Postfix with OpenDKIM, on the same mails (as root, on Debian)
	@$(PY) -m bench peers

schema: setup ## Write gateway/store/sql/schema.sql from a freshly migrated database
	@$(PY) -m gateway.store.schema

lock: setup ## Resolve the dependencies anew; UPGRADE=1 also takes newer releases
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra dev -o requirements.lock
	printf 'uv\nsetuptools\n' | $(COMPILE) $(if $(UPGRADE),--upgrade) - -o requirements-bootstrap.lock
	@sh tools/setup.sh
