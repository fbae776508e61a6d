# The commands of this project. Each installs what it needs and is missing; `scripts/bootstrap` says so when
# it cannot. SECONDS is how long each fuzz target runs.
.DEFAULT_GOAL := build
.PHONY: build test demo bench soak format lint fuzz clean bootstrap

SECONDS ?= 10

build: bootstrap                ## Release binary at .build/release/load_balancer
	scripts/build

test: bootstrap                 ## Every check and every test
	scripts/test $(SECONDS)

demo: bootstrap                 ## A few requests, a failover, and their traces on the terminal
	scripts/build
	scripts/demo

bench: bootstrap                ## The comparison with other proxies
	scripts/bootstrap bench
	scripts/build
	perf/bench

soak: bootstrap                 ## Reloads, kills and resizing under load; every request and span accounted for
	scripts/bootstrap bench
	scripts/build
	.venv/bin/python perf/soak
	.venv/bin/python perf/soak --peers

format: bootstrap               ## Rewrites the Swift sources in the project's form
	swift format --in-place --parallel --recursive Package.swift Sources Tests

lint: bootstrap                 ## Form and rules of the sources
	scripts/lint

fuzz: bootstrap                 ## Each fuzz target for SECONDS
	scripts/fuzz $(SECONDS)

clean:                          ## Everything that was built
	rm -rf .build .build-asan .build-tsan .venv

bootstrap:
	@scripts/bootstrap
