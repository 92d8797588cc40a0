# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Python lives in .venv, everything built in build/; both are made on
# demand and brought up to date by whatever target needs them.
PYTHON ?= python3

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
export CTEST_PARALLEL_LEVEL ?= $(CMAKE_BUILD_PARALLEL_LEVEL)

FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1

INSTALL := toolchains/install_packages.sh
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo --preserve-env)
DEBIAN_ROOT := $(SUDO) $(BIN)/python toolchains/debian_root.py
SOURCES := $(shell find cpp examples include tests -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' -o -name '*.inc')

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-host test-asan test-tsan test-clang test-arm64 test-python test-bench test-versions \
  test-compilers fuzz core board bench lint format clean

help:  ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1\t/p' Makefile | expand --tabs=16

demo: .venv/.demo core  ## Super-resolution in every scheme, with a table and a picture (2 minutes)
	$(BIN)/qppengine demo --output build/demo

test: test-host test-asan test-arm64 test-python fuzz  ## All tests, on this machine and as 64-bit Arm code

test-host: .venv/.dev  ## C++ tests
	$(BIN)/cmake --workflow --preset host

test-asan: .venv/.dev  ## C++ tests under Clang's AddressSanitizer and UndefinedBehaviorSanitizer
	$(INSTALL) clang-19 libclang-rt-19-dev
	$(BIN)/cmake --workflow --preset asan

test-tsan: .venv/.dev  ## C++ tests under ThreadSanitizer (not part of `make test`)
	$(BIN)/cmake --workflow --preset tsan

test-clang: .venv/.dev  ## C++ tests under QEMU, built with Clang (not part of `make test`)
	$(INSTALL) clang-19 g++-aarch64-linux-gnu qemu-user
	$(BIN)/cmake --workflow --preset aarch64-clang

# This machine's build makes the models and what they come to: the same bytes are expected.
test-arm64: export QPPENGINE_TEST_MODELS := build/arm64/models
test-arm64: build/arm64/.stamp core  ## C++ tests and the Python device tests under QEMU
	$(BIN)/cmake --preset aarch64 -C build/arm64/python.cmake
	$(BIN)/cmake --build --preset aarch64
	$(BIN)/ctest --preset aarch64
	rm -rf build/arm64/site/qppengine
	cp -r python/qppengine build/arm64/site/
	$(BIN)/cmake --install build/aarch64 --component python --prefix build/arm64/site
	$(BIN)/python tests/python/device/make_models.py $(QPPENGINE_TEST_MODELS)
	build/arm64/python -m pytest -m device -p no:cacheprovider
	QEMU_CPU=cortex-a72 build/arm64/python -m pytest -p no:cacheprovider \
	  tests/python/device/test_signature.py

test-python: .venv/.dev core  ## Python tests
	$(BIN)/pytest -n $(CMAKE_BUILD_PARALLEL_LEVEL) --dist loadscope

# In bare roots of Debian 12 and 13: the Python tests with the oldest and the newest versions of
# packages. Debian 13 has the newest Python and GCC; the blocks of the README are built there.
test-versions: .venv/.created  ## Bare Debian 12 and 13: README, oldest and newest packages (not part of `make test`)
	$(INSTALL) mmdebstrap
	$(DEBIAN_ROOT) bookworm toolchains/test_versions.sh oldest
	$(DEBIAN_ROOT) trixie bash -ec 'CXXFLAGS=-Werror python3 tests/docs/run_blocks.py; \
	  toolchains/test_versions.sh newest'

test-compilers: .venv/.created  ## C++ tests with GCC 12 to 14 and Clang 16 to 19 (not part of `make test`)
	$(INSTALL) mmdebstrap
	$(DEBIAN_ROOT) bookworm toolchains/build_with.sh g++-12 clang++-16
	$(DEBIAN_ROOT) trixie toolchains/build_with.sh g++-13 g++-14 clang++-17 clang++-18 clang++-19

fuzz: .venv/.dev core  ## Altered files for the loader and every importer (FUZZ_SECONDS=60 each)
	$(INSTALL) clang-19 libclang-rt-19-dev
	$(BIN)/cmake --preset fuzz
	$(BIN)/cmake --build --preset fuzz --target fuzz_model
	$(BIN)/python tests/fuzz/fuzz_qpp.py --write-seeds build/fuzz/seeds
	mkdir -p build/fuzz/corpus build/findings
	build/fuzz/fuzz_model -max_total_time=$(FUZZ_SECONDS) -seed=$(FUZZ_SEED) -max_len=65536 -timeout=20 \
	  -rss_limit_mb=2048 -dict=tests/fuzz/model.dict -artifact_prefix=build/findings/ -verbosity=0 \
	  -print_final_stats=1 build/fuzz/corpus build/fuzz/seeds
	printf '%s\n' tests/fuzz/fuzz_*.py | xargs -P $(CMAKE_BUILD_PARALLEL_LEVEL) -I {} \
	  $(BIN)/python {} --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

board: .venv/.build  ## build/aarch64/qpp_bench, a static binary for any 64-bit Arm Linux
	$(INSTALL) g++-aarch64-linux-gnu
	$(BIN)/cmake --preset aarch64
	$(BIN)/cmake --build --preset aarch64 --target qpp_bench

bench: .venv/.dev core  ## Wall-clock times of networks and layers in every scheme
	$(BIN)/pytest bench -p no:cacheprovider --benchmark-columns=min,median,rounds --benchmark-sort=name

test-bench: .venv/.dev core  ## Every benchmark with one round: do they run? (not part of `make test`)
	$(BIN)/cmake --preset host
	$(BIN)/cmake --build --preset host --target qpp_bench checkkernels
	build/host/checkkernels --filter conv_qai8 --seed 7
	build/host/checkkernels --filter conv_qai8 --bench --iters 1
	QPP_FORCE_KERNEL=ref build/host/qpp_bench conv --dtype int8 --size 56x56x64 --filters 64 --iters 1
	$(BIN)/pytest bench -p no:cacheprovider --benchmark-disable
	$(BIN)/python bench/report.py build/host/qpp_bench bench/shapes/espcn_x3.txt -o build/costs.csv
	$(BIN)/python bench/compare_onnxruntime.py --rounds 1 --iters 1
	$(BIN)/python bench/accuracy/make_networks.py build/networks espcn_x3 --samples 8
	$(BIN)/python bench/accuracy/trained_hrnet.py --steps 1 --batch 1

lint: .venv/.dev core build/arm64/.stamp  ## Formatting, types and static analysis
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/stubtest --concise --allowlist toolchains/stubtest_allowlist.txt qppengine._core
	$(BIN)/clang-format --dry-run -Werror $(SOURCES)
	$(BIN)/cmake --preset host > build/host.log
	$(BIN)/cmake --preset aarch64 -C build/arm64/python.cmake > build/aarch64.log
	$(BIN)/python toolchains/clang_tidy.py build/host build/aarch64

format: .venv/.dev  ## Format all sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(SOURCES)

clean:  ## Remove everything that was built
	rm -rf build .venv

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed")'
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || $(INSTALL) python3-venv
	@$(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2> /dev/null || \
	  $(INSTALL) python3-dev
	$(PYTHON) -m venv .venv
	cd .venv && ln -s lib/python3*/site-packages site-packages
	touch $@

# Without build isolation a rebuild of the extension is incremental, since its flags stay the same.
INSTALL_PACKAGE := $(BIN)/pip install --quiet --no-build-isolation

.venv/.build: .venv/.created pyproject.toml
	$(BIN)/pip install --quiet cmake ninja $$($(BIN)/python -c \
	  'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	touch $@

.venv/.demo: .venv/.build
	$(INSTALL_PACKAGE) --editable '.[demo]'
	touch $@

.venv/.dev: .venv/.build
	$(INSTALL) doctest-dev
	$(INSTALL_PACKAGE) --editable '.[dev]'
	touch $@ .venv/.demo

core: .venv/.build
	$(INSTALL_PACKAGE) --no-deps --editable .

build/arm64/.stamp: toolchains/arm64_sysroot.sh | .venv/.dev
	$(INSTALL) g++-aarch64-linux-gnu qemu-user
	PYTHON=$(BIN)/python toolchains/arm64_sysroot.sh
