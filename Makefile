# The commands of everyday work; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules

TARGET := $(or $(CARGO_TARGET_DIR),target)

# Where things go. The units name /usr/local; `install` writes the PREFIX that was asked for into them.
DESTDIR    :=
PREFIX     := /usr/local
SYSCONFDIR := /etc
BINDIR     := $(PREFIX)/bin
UNITDIR    := $(PREFIX)/lib/systemd/system
DOCDIR     := $(PREFIX)/share/doc/baton
# Where bash, zsh and fish look for the completions of programs in PREFIX.
BASHDIR    := $(PREFIX)/share/bash-completion/completions
ZSHDIR     := $(PREFIX)/share/zsh/site-functions
FISHDIR    := $(PREFIX)/share/fish/vendor_completions.d
CONFIG     := $(SYSCONFDIR)/baton/baton.ron

# BUILT names a directory with ready binaries: `install` then builds nothing.
BUILT    :=
BINARIES := baton-hugepages baton-primary baton-sync batonctl
UNITS    := $(notdir $(wildcard systemd/*.service systemd/*.target))
DOCS     := README.md ARCHITECTURE.md CHANGELOG.md LICENSE conf/baton.ron $(wildcard docs/*.md) docs/alerts.yml docs/grafana/baton.json
SCRIPTS  := .ci/run tests/run $(wildcard tests/install-deps)

# What `bench-table` and `bench-sync` measure: how many sessions, and how often.
SIZES  := 1000000 5000000 20000000
ROUNDS := 3

# Which stories `make sim` tells: how many seeds, and the first.
SEEDS := 1000
SEED0 := 1

# How many secondaries `make kills` kills.
KILLS := 10000

.PHONY: help deps testdeps build demo test unit loom sim kills lint bench-table bench-sync fuzz install uninstall

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

deps: ## Install what build and demo need and Debian 12 lacks (needs root if anything is missing)
	@tests/install-deps

testdeps: ## Install what the tests need besides
	@tests/install-deps --tests

build: deps ## Build the release binaries
	@cargo build --release --workspace
	@echo "binaries: $(TARGET)/release/"

demo: build ## Kill a balancer under live connections, count what is lost
	@$(TARGET)/release/baton-lab demo

test: testdeps lint ## Lint, then all tests; ends with `N passed, N failed` (needs root)
	@tests/run default loom root

unit: testdeps ## Only the tests that need no root
	@tests/run default

loom: testdeps ## Only the models of shared memory, in every order of their steps
	@tests/run loom

sim: ## Simulate whole clusters: SEEDS=n stories from SEED0=m on; a failure names its seed
	@BATON_SIM_SEEDS=$(SEEDS) BATON_SIM_SEED0=$(SEED0) \
		cargo test --quiet --release -p baton-common --lib sync::sim::clusters -- --nocapture

kills: testdeps ## Kill KILLS=n secondaries at random instants under load; nothing may add up (needs root)
	@cargo build --quiet --workspace --bins
	@BATON_KILLS=$(KILLS) cargo test --quiet -p baton-lab --test lab -- --nocapture root_kills_of_secondaries

lint: testdeps ## Formatting, clippy, documentation, shell scripts
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
	@shellcheck --severity=warning $(SCRIPTS)
	@echo "lint: clean"

bench-table: build ## Session tables beside others, into bench/results; SIZES= and ROUNDS= shorten it (needs root)
	@$(TARGET)/release/baton-bench table --sizes "$(SIZES)" --rounds $(ROUNDS)

bench-sync: build testdeps ## Sessions from node to node beside conntrackd and Redis; SIZES= and ROUNDS= shorten it (needs root)
	@$(TARGET)/release/baton-bench sync --sizes "$(SIZES)" --rounds $(ROUNDS)

# What is found goes to FUZZ_FOUND first; only what reaches new code goes on into the corpus, which the tests replay.
FUZZ_SECONDS := 300
FUZZ_TARGETS := wire_records wire_datagram
FUZZ_FOUND   := target/found

fuzz: ## Fuzz the wire format's decoder (needs cargo-fuzz and a nightly compiler; FUZZ_SECONDS=n each)
	@cd fuzz && for target in $(FUZZ_TARGETS); do \
		mkdir -p $(FUZZ_FOUND)/$$target; \
		cargo +nightly fuzz run $$target $(FUZZ_FOUND)/$$target corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=2000; \
		cargo +nightly fuzz run $$target corpus/$$target $(FUZZ_FOUND)/$$target -- -set_cover_merge=1 -use_counters=0; \
	done

install: $(if $(BUILT),,build) ## Binaries, units, documents, completions, sample config; honours DESTDIR, PREFIX, SYSCONFDIR
	@install -d $(addprefix "$(DESTDIR)",$(BINDIR) $(UNITDIR) $(DOCDIR) $(BASHDIR) $(ZSHDIR) $(FISHDIR) $(dir $(CONFIG)))
	@install -m 755 $(addprefix $(or $(BUILT),$(TARGET)/release)/,$(BINARIES)) "$(DESTDIR)$(BINDIR)"
	@for unit in $(UNITS); do \
		sed -e 's|/usr/local/bin/|$(BINDIR)/|' -e 's|/usr/local/share/doc/baton/|$(DOCDIR)/|' -e 's|/etc/baton/|$(dir $(CONFIG))|' \
			"systemd/$$unit" | install -m 644 /dev/stdin "$(DESTDIR)$(UNITDIR)/$$unit"; \
	done
	@batonctl="$(or $(BUILT),$(TARGET)/release)/batonctl"; \
		"$$batonctl" completions bash | install -m 644 /dev/stdin "$(DESTDIR)$(BASHDIR)/batonctl"; \
		"$$batonctl" completions zsh | install -m 644 /dev/stdin "$(DESTDIR)$(ZSHDIR)/_batonctl"; \
		"$$batonctl" completions fish | install -m 644 /dev/stdin "$(DESTDIR)$(FISHDIR)/batonctl.fish"
	@for document in $(DOCS); do install -D -m 644 "$$document" "$(DESTDIR)$(DOCDIR)/$$document"; done
	@if [ -e "$(DESTDIR)$(CONFIG)" ]; then echo "kept:      $(DESTDIR)$(CONFIG)"; \
		else install -m 640 conf/baton.ron "$(DESTDIR)$(CONFIG)"; echo "config:    $(DESTDIR)$(CONFIG)"; fi
	@echo "binaries:  $(DESTDIR)$(BINDIR)"
	@echo "units:     $(DESTDIR)$(UNITDIR)"
	@echo "documents: $(DESTDIR)$(DOCDIR)"
	@if [ -z "$(DESTDIR)" ]; then \
		echo "next:      edit $(CONFIG); systemctl daemon-reload; systemctl enable --now baton.target"; fi

uninstall: ## Remove what `install` put there; a config that was edited stays
	@rm -f $(addprefix "$(DESTDIR)$(BINDIR)"/,$(BINARIES)) $(addprefix "$(DESTDIR)$(UNITDIR)"/,$(UNITS)) \
		$(addprefix "$(DESTDIR)$(DOCDIR)"/,$(DOCS)) \
		"$(DESTDIR)$(BASHDIR)/batonctl" "$(DESTDIR)$(ZSHDIR)/_batonctl" "$(DESTDIR)$(FISHDIR)/batonctl.fish"
	@if cmp -s conf/baton.ron "$(DESTDIR)$(CONFIG)"; then rm -f "$(DESTDIR)$(CONFIG)"; \
		elif [ -e "$(DESTDIR)$(CONFIG)" ]; then echo "kept, because it was edited: $(DESTDIR)$(CONFIG)"; fi
	@rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(DOCDIR)/conf" "$(DESTDIR)$(DOCDIR)/docs/grafana" "$(DESTDIR)$(DOCDIR)/docs" "$(DESTDIR)$(DOCDIR)" "$(DESTDIR)$(dir $(CONFIG))" 2>/dev/null || true
