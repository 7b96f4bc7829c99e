# Start with `make quickstart` and `make test`; `make help` lists every target.
# CUDA=0 or CUDA=1 selects the CPU or CUDA libraries. If unset, CUDA is used where nvidia-smi works.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
PREFIX ?= $(HOME)/.local
PROGRAM := target/release/oss-run
VENV := .venv-interop
# Seconds per fuzz target.
FUZZ_SECONDS ?= 60
# For `make bench-gpu`: a Python with CUDA-enabled torch and, for the comparison, transformers.
PYTHON ?= python3
# Evaluated in recipes, after `setup`: `--features cuda` if libtorch includes CUDA.
FEATURES = $$(scripts/cargo-features.sh)

.DEFAULT_GOAL := help
.PHONY: help setup build quickstart test figures interop fuzz bench bench-gpu doctor install dist lint check-cuda sanitize clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## download libtorch once and link it as .libtorch
	@scripts/setup-libtorch.sh

build: setup ## build target/release/oss-run
	cargo build --release $(FEATURES)

quickstart: build ## build, then train a small model and print samples, in minutes
	$(PROGRAM) experiments/quickstart.toml
	@echo 'curves: pip install tensorboard && tensorboard --logdir runs' >&2

test: setup ## run all tests
	cargo test $(FEATURES)

figures: setup ## regenerate the figures in docs/explained; `make test` checks that they are current
	OSS_RUN_BLESS=1 cargo test $(FEATURES) --test figures

interop: build $(VENV)/ready ## check models, logs, reports and ranks against transformers, TensorBoard, Chromium and torchrun
	$(VENV)/bin/python interop/run.py

fuzz: setup ## run every fuzz target for FUZZ_SECONDS (60)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

bench: build $(VENV)/ready ## benchmark training and decoding against transformers; text, checkpoints, ranks, memory
	$(VENV)/bin/python benches/run.py

bench-gpu: ## on one GPU: check parity, then benchmark the 20B shape with fewer layers; builds nothing
	$(PYTHON) benches/gpu.py

doctor: ## report what this machine has and lacks, and how to fix it
	@scripts/doctor.sh

install: build ## install the program and its libraries under PREFIX (~/.local)
	@scripts/install.sh "$(DESTDIR)$(PREFIX)"

dist: setup ## package the program and its libraries as a relocatable tarball and a Python wheel
	@scripts/dist.sh
	@scripts/check-dist.sh

lint: setup ## check formatting, clippy, documentation and dependencies; warnings are errors
	cargo fmt --check
	cargo clippy --all-targets $(FEATURES) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps $(FEATURES)
	@scripts/deny.sh

check-cuda: setup ## compile and link the `cuda` feature; needs no GPU
	@scripts/check-cuda.sh

sanitize: setup ## run the tests of libtorch's bridge and the kernels under AddressSanitizer
	@scripts/sanitize.sh

clean: ## remove build outputs; keep runs and the user's cache
	rm -rf target $(VENV)
	if [[ -L .libtorch ]]; then rm .libtorch; fi

$(VENV)/ready: interop/requirements.txt scripts/interop-venv.sh
	@scripts/interop-venv.sh $(VENV)
