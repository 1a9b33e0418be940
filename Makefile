# Spillgate's build, tests and checks. `make` lists what there is.
#
# Nothing is installed but by apt-get, pip, npm and cargo, and only what is missing; each is said before it happens.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
PYTHON ?= python3
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
CLIENTS := tests/clients
NET := tests/net
VENV := .venv
SCENARIO ?= fanout
FUZZ_SECONDS ?= 60
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

# A command that is missing, and the Debian package that brings it.
BUILD_TOOLS := gcc:gcc git:git
CLIENT_TOOLS := redis-server:redis-server redis-cli:redis-tools chromium:chromium node:nodejs npm:npm \
  haproxy:haproxy openssl:openssl systemd-analyze:systemd nm:binutils promtool:prometheus
HOST_TOOLS := sysctl:procps prlimit:util-linux shellcheck:shellcheck nft:nftables
NET_TOOLS := ip:iproute2 tc:iproute2 ss:iproute2

.PHONY: help
help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: build-tools ## Build the program for use, into target/release
	$(CARGO) build --release --locked

.PHONY: test
test: test-rust test-python test-node ## Run all tests; install what they need where it is missing

.PHONY: test-rust
test-rust: build-tools client-tools host-tools ## Run cargo test
	$(CARGO) test --workspace --locked --no-fail-fast

.PHONY: test-python
test-python: program client-tools $(VENV)/installed ## Run the tests with Python's clients
	SPILLGATE_BIN=$(TARGET_DIR)/debug/spillgate $(VENV)/bin/pytest -c $(CLIENTS)/pytest.ini $(CLIENTS)

.PHONY: test-net
test-net: build net-tools $(VENV)/installed ## Run the tests on slow, far and stalled networks of their own (as root)
	SPILLGATE_BIN=$(TARGET_DIR)/release/spillgate $(VENV)/bin/pytest -c $(NET)/pytest.ini $(NET)

.PHONY: test-node
test-node: program client-tools $(CLIENTS)/node_modules/.package-lock.json ## Run the tests with Node's clients and the demo in Chromium
	cd $(CLIENTS) && SPILLGATE_BIN=$(TARGET_DIR)/debug/spillgate node --test --test-concurrency=1 --test-reporter=spec

.PHONY: lint
lint: build-tools ## Check form, clippy's findings, and with cargo-deny the dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --locked check --hide-inclusion-graph bans licenses sources; \
	else \
	  echo 'cargo-deny is not installed: dependencies are not checked (cargo install cargo-deny --locked)'; \
	fi

.PHONY: load
load: build-tools client-tools ## Build the load tester and run SCENARIO (fanout); SCENARIO=million takes root and 24 GiB
	$(CARGO) build --release --locked --package spillgate --package spillgate-load
	$(TARGET_DIR)/release/spillgate-load run $(SCENARIO)

.PHONY: deb
deb: build ## Build the Debian package, into target/debian; needs cargo-deb, and installs it where it is missing
	@$(CARGO) deb --version >/dev/null 2>&1 || { \
	  echo 'installing cargo-deb (cargo)'; $(CARGO) install --quiet cargo-deb --locked; }
	@tuning/package-files $(TARGET_DIR)/release/spillgate target/deb
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || date +%s) \
	  $(CARGO) deb --quiet --no-build --locked --strip --output $(TARGET_DIR)/debian/spillgate.deb

.PHONY: test-deb
test-deb: deb ## Install the package into a clean Debian root (debootstrap, as root), run it there, and remove it
	@tests/install debootstrap:debootstrap lintian:lintian systemd-analyze:systemd
	tests/deb $(TARGET_DIR)/debian/spillgate.deb

.PHONY: fuzz
fuzz: build-tools ## Fuzz each target for FUZZ_SECONDS (60); needs cargo-fuzz, and installs it where it is missing
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { \
	  echo 'installing cargo-fuzz (cargo)'; $(CARGO) install --quiet cargo-fuzz --locked; }
	@for target in $(FUZZ_TARGETS); do \
	  echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  $(CARGO) fuzz run -s none $$target -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

.PHONY: bench
bench: build-tools ## Time the parts, and delivery to 4,000 sockets
	$(CARGO) bench --locked --bench parts --bench fanout

.PHONY: bench-check
bench-check: callgrind ## Fail where a bench executes over 5 % more instructions than its baseline
	@CARGO=$(CARGO) $(PYTHON) benches/check

.PHONY: bench-baseline
bench-baseline: callgrind ## Count the benches' instructions anew as their baseline, benches/instructions.toml
	@CARGO=$(CARGO) $(PYTHON) benches/check --write

.PHONY: bench-floor
bench-floor: build-tools ## Compare the CPU time of a delivery with the floor's (2 minutes; leave the machine alone)
	$(CARGO) bench --locked --bench floor

.PHONY: bench-profile
bench-profile: build-tools ## Say where a gateway with 10,000 sockets spends its time (as root, a minute; leave the machine alone)
	@tests/install perf:linux-perf addr2line:binutils
	@CARGO=$(CARGO) $(PYTHON) benches/profile

.PHONY: test-scale
test-scale: build-tools ## Run the scale tests with their whole numbers, on the program as it is used
	SPILLGATE_FULL=1 $(CARGO) test --release --locked --test scale --test burst

.PHONY: tuning
tuning: program ## Write the generated files of tuning/ anew, from the table that `spillgate doctor` judges by
	@tuning/generate $(TARGET_DIR)/debug/spillgate

.PHONY: clean
clean: ## Remove everything that was built or installed below this directory
	$(CARGO) clean
	rm -rf $(VENV) $(CLIENTS)/node_modules

.PHONY: program
program: build-tools
	@$(CARGO) build --quiet --locked

# glommio's build script needs a C compiler, the C library's headers, and git.
.PHONY: build-tools
build-tools:
	@tests/install $(BUILD_TOOLS) $$(test -e /usr/include/stdio.h || echo missing-headers:libc6-dev)

# The runner must be of the version that the benches are built with.
.PHONY: callgrind
callgrind: build-tools
	@tests/install valgrind:valgrind
	@version=$$(sed -n '/^name = "gungraun"$$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock); \
	gungraun-runner --version 2>/dev/null | grep -qw "$$version" || { \
	  echo "installing gungraun-runner $$version (cargo)"; \
	  $(CARGO) install --quiet gungraun-runner --version "$$version" --locked; }

.PHONY: net-tools
net-tools:
	@tests/install $(NET_TOOLS)

.PHONY: host-tools
host-tools:
	@tests/install $(HOST_TOOLS)

.PHONY: client-tools
client-tools:
	@tests/install $(CLIENT_TOOLS)

$(VENV)/installed: $(CLIENTS)/requirements.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tests/install missing-venv:python3-venv
	@echo 'installing $(CLIENTS)/requirements.txt into $(VENV) (pip)'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(CLIENTS)/node_modules/.package-lock.json: $(CLIENTS)/package-lock.json
	@echo 'installing the packages of $< (npm)'
	@cd $(CLIENTS) && npm ci --silent --no-audit --no-fund
	@touch $@
