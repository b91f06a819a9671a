# The README's commands. Each does all the set-up that it needs: Rust, Python 3.11, gcc and make are enough.

CARGO ?= cargo
PYTHON ?= python3
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
BIN := target/release

.PHONY: demo test test-tools lint bench build python wheels clean-sessions

# A CUDA workload on a machine with a GPU, the same path under gpu-sim elsewhere.
demo: build
	@scripts/demo.sh $(BIN)

build:
	$(CARGO) build --release --workspace

# Everything: lint, Rust (unit, integration under gpu-sim, layouts against NVIDIA's wheels), Python (sessions, regions on
# a fake vLLM, the installed wheel).
test: lint wheels
	$(CARGO) build --workspace
	$(CARGO) test --workspace --no-fail-fast
	$(CARGO) test -p cupti-sys --features bindgen --test headers
	$(CARGO) build --release -p colonel-guest
	scripts/python_tests.sh $(VENV_PYTHON)

lint: python
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# HolisticTraceAnalysis and Perfetto's own definitions read what `colonel export` writes, and sessions are opened from
# an S3 server. Apart from `make test`, for the packages' size.
test-tools:
	$(CARGO) build --workspace
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check -r tests/python/tools/requirements.txt
	COLONEL_BIN=$(CURDIR)/target/debug/colonel .venv-tools/bin/python -m pytest -q tests/python/tools

# Records a second and core, bytes a kernel; nanoseconds of an NVTX call in an armed process.
bench:
	$(CARGO) build --release -p colonel-guest
	$(CARGO) bench --no-default-features --features bench

python: $(VENV)/.ready

$(VENV)/.ready: tests/python/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	touch $@

# NVIDIA's CUPTI wheels, for tests only; never committed.
wheels:
	tests/cupti/fetch_wheels.sh
