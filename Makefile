# Two commands matter: `make run` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
# Property tests draw the same cases on every run; another number explores others.
export PROPTEST_RNG_SEED ?= 20261122
# Flags for the development host: make run ARGS="--http-port 8080"
ARGS ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: setup-build setup-test setup-deploy
setup-build:
	@deploy/setup.sh build
setup-test:
	@deploy/setup.sh test
setup-deploy:
	@deploy/setup.sh deploy

client/node_modules/.package-lock.json: client/package-lock.json
	cd client && npm ci --no-audit --no-fund
	@touch $@
tests/e2e/node_modules/.package-lock.json: tests/e2e/package-lock.json
	cd tests/e2e && npm ci --no-audit --no-fund
	@touch $@
.venv/installed: tests/python/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement tests/python/requirements.txt
	@touch $@

.PHONY: client
client: setup-build client/node_modules/.package-lock.json ## build the visit page into client/dist
	cd client && npm run --silent build

.PHONY: build
build: setup-build client ## build everything in release
	$(CARGO) build --release --locked --bins

.PHONY: pgo
pgo: client ## build sfu and signaling by a profile of calls, into target/pgo/release; three times the time
	@deploy/pgo.sh release

.PHONY: run
run: build ## run signaling and sfu on loopback with development defaults, and print links to join
	@exec target/release/curtain-dev $(ARGS)

.PHONY: check
check: setup-build client/node_modules/.package-lock.json ## formatting, lints, docs, client lint and types
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	cd client && npm run --silent lint && npm run --silent typecheck

.PHONY: test
test: test-rust test-client test-e2e ## every test: Rust, client, real browsers and SDKs

.PHONY: test-rust
test-rust: setup-test ## unit, property, simulation and service tests
	$(CARGO) test --locked --workspace

.PHONY: test-client
test-client: setup-build client/node_modules/.package-lock.json ## tests of the page's own code
	cd client && npm run --silent test

.PHONY: test-e2e
test-e2e: setup-test build tests/e2e/node_modules/.package-lock.json .venv/installed ## real clients against the real binaries
	cd tests/e2e && npm test --silent

# The recipes build by themselves, so that nothing but figures goes to standard output.
.PHONY: networks networks-json
networks-json: ## figures of calls on bad networks, one JSON object a line; fails when a bound does not hold
	@$(MAKE) --no-print-directory setup-test build tests/e2e/node_modules/.package-lock.json >&2
	@status=0; \
	$(CARGO) test --quiet --locked -p sfu-media --test networks -- --all --json || status=1; \
	tests/e2e/networks/run.sh || status=1; \
	exit $$status

networks: ## the same, as the table of docs/networks.md
	@mkdir -p run
	@status=0; \
	$(MAKE) -s networks-json > run/networks.json || status=1; \
	node tests/e2e/networks/table.js docs/networks.md < run/networks.json; \
	exit $$status

# As root; the part of `make test` is in `cargo test -p deploy-check`.
.PHONY: deploy-check
deploy-check: setup-deploy build ## units in their sandbox, alert rules, dashboard, compose file
	deploy/check/units.sh target/release client/dist
	deploy/check/files.sh
	/usr/bin/python3 deploy/check/compose.py
	deploy/check/live.py target/release

.PHONY: deploy-images
deploy-images: build ## run the images' last stages closed as in the compose file, by podman, without a registry
	deploy/check/images.sh target/release client/dist

# Criterion's reports go to standard error. Every subscriber of a benchmark takes a socket.
CRITERION_HOME = $(CURDIR)/run/criterion
define run-benches
@$(MAKE) --no-print-directory setup-build >&2
@rm -rf $(CRITERION_HOME); mkdir -p $(CRITERION_HOME)
@$(CARGO) bench --quiet --locked -p benches --no-run >&2
@export CRITERION_HOME=$(CRITERION_HOME); \
$(CARGO) bench --quiet --locked -p benches --bench parse --bench srtp --bench forward --bench udp -- --quiet --warm-up-time 0.3 --measurement-time 0.7 >&2 && \
{ ulimit -n 8192 2>/dev/null || ulimit -n "$$(ulimit -Hn)"; } && \
$(CARGO) bench --quiet --locked -p benches --bench shard_fanout -- $(1) $(ARGS) && \
$(CARGO) bench --quiet --locked -p benches --bench scaling -- $(1) $(ARGS) && \
$(CARGO) run --quiet --release --locked -p benches --bin bench-report -- $(1)
endef

.PHONY: bench bench-json bench-check bench-baseline
bench: ## what forwarding costs: nanoseconds per packet, against the floor measured in the same process
	$(call run-benches,)

bench-json: ## the same, one JSON object a line
	$(call run-benches,--json)

bench-check: ## fail when forwarding takes more instructions than benches/instructions.json says
	@deploy/setup.sh bench >&2
	@$(CARGO) run --quiet --release --locked -p benches --bin bench-check -- benches/instructions.json

bench-baseline: ## count anew into benches/instructions.json
	@deploy/setup.sh bench >&2
	@$(CARGO) run --quiet --release --locked -p benches --bin bench-check -- benches/instructions.json --write

.PHONY: bench-pgo
bench-pgo: setup-build ## what forwarding costs in a build by a profile, as `make pgo` makes
	@deploy/pgo.sh bench >&2
	@{ ulimit -n 8192 2>/dev/null || ulimit -n "$$(ulimit -Hn)"; } && \
	target/pgo/bench/shard_fanout $(ARGS) && target/pgo/bench/scaling $(ARGS)

.PHONY: bench-live bench-live-json
bench-live: ## what a whole relay process takes with live clients on loopback: CPU a packet and a join, delay, memory
	@$(MAKE) --no-print-directory setup-build >&2
	@$(CARGO) build --release --locked -p curtain-dev -p loadtest >&2
	@target/release/loadtest bench $(ARGS)

bench-live-json: ## the same, one JSON object a line
	@$(MAKE) --no-print-directory bench-live ARGS="--json $(ARGS)"

.PHONY: bench-live-floor
bench-live-floor: ## what a bare forwarder takes for the same shapes, and the relay at the same time
	@$(MAKE) --no-print-directory setup-build >&2
	@$(CARGO) build --release --locked -p curtain-dev -p loadtest >&2
	@$(CARGO) build --release --locked -p benches --bin bench-live-floor >&2
	@target/release/bench-live-floor $(ARGS)

.PHONY: loadtest loadtest-capacity
# Flags after the server's: make loadtest LOAD="--scenario churn"
LOAD ?= --rooms 5 --participants 4 --video 720p --audio --duration 30s
loadtest: build ## run the load tester against a relay of its own on loopback
	@loadtest/local.sh run $(LOAD)
loadtest-capacity: build ## find what that relay carries on this machine; the tester shares its cores
	@loadtest/local.sh capacity --participants 4 --video 720p --audio $(LOAD_CAPACITY)

# As root: network namespaces.
.PHONY: loadtest-machines
loadtest-machines: build ## three load testers on machines of their own, one of them far away, make one run
	@loadtest/machines.sh

.PHONY: clean
clean: ## remove everything that was built
	rm -rf target client/dist client/node_modules tests/e2e/node_modules .venv run
