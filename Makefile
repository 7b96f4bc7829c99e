# oss-run's two commands are `make quickstart` and `make test`. All of them: `make help`.
# CUDA=0 or CUDA=1 chooses the set of libraries; unset, a working nvidia-smi decides.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
PREFIX ?= $(HOME)/.local
PROGRAM := target/release/oss-run
VENV := .venv-interop
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60
# Has torch with CUDA and, for the peer, transformers.
PYTHON ?= python3
# Evaluated in recipes, after the set-up: `--features cuda` when libtorch has its CUDA half.
FEATURES = $$(scripts/cargo-features.sh)

.DEFAULT_GOAL := help
.PHONY: help setup build quickstart test figures interop fuzz bench bench-gpu doctor install dist lint check-cuda sanitize clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## fetch libtorch once and link it as .libtorch
	@scripts/setup-libtorch.sh

build: setup ## build target/release/oss-run
	cargo build --release $(FEATURES)

quickstart: build ## from nothing to a small trained model, with samples, in minutes
	$(PROGRAM) experiments/quickstart.toml
	@echo 'curves: pip install tensorboard && tensorboard --logdir runs' >&2

test: setup ## every test
	cargo test $(FEATURES)

figures: setup ## draw the figures of docs/explained from what the program does; `make test` compares them
	OSS_RUN_BLESS=1 cargo test $(FEATURES) --test figures

interop: build $(VENV)/ready ## hold models, logs, reports and ranks to transformers, tensorboard, Chromium, torchrun
	$(VENV)/bin/python interop/run.py

fuzz: setup ## every fuzz target for FUZZ_SECONDS (60)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

bench: build $(VENV)/ready ## training and decoding beside transformers; text, checkpoints, ranks, memory
	$(VENV)/bin/python benches/run.py

bench-gpu: ## parity, then the 20B shape with fewer layers on one GPU beside transformers; builds nothing
	$(PYTHON) benches/gpu.py

doctor: ## what this machine has, lacks, and how to fix it
	@scripts/doctor.sh

install: build ## put the program and its libraries under PREFIX (~/.local)
	@scripts/install.sh "$(DESTDIR)$(PREFIX)"

dist: setup ## a relocatable tarball and a Python wheel of program and libraries, with digests
	@scripts/dist.sh
	@scripts/check-dist.sh

lint: setup ## formatting, clippy, documentation and dependencies, warnings denied
	cargo fmt --check
	cargo clippy --all-targets $(FEATURES) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps $(FEATURES)
	@scripts/deny.sh

check-cuda: setup ## compile and link the feature `cuda`, GPU or not
	@scripts/check-cuda.sh

sanitize: setup ## the tests of unsafe code under AddressSanitizer
	@scripts/sanitize.sh

clean: ## remove what was built here; runs and the user's cache stay
	rm -rf target $(VENV)
	if [[ -L .libtorch ]]; then rm .libtorch; fi

$(VENV)/ready: interop/requirements.txt scripts/interop-venv.sh
	@scripts/interop-venv.sh $(VENV)
