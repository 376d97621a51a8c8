# `make demo` and `make test` make .venv first, each with what it needs. Neither asks for root.
PYTHON ?= python3
BIN := .venv/bin
DEMO_EXTRAS := camera,train,export,plot
TEST_EXTRAS := $(DEMO_EXTRAS),test,browser,encoders,tensorrt-rtx,cluster
# pip prints errors and nothing else.
INSTALL := -m pip install -qq --disable-pip-version-check
# One thread in each process, and one process more than there are cores, four at most: many tests wait for processes.
WORKERS := $(shell n=$$(($$(getconf _NPROCESSORS_ONLN) + 1)); echo $$((n < 4 ? n : 4)))
PYTEST := -m pytest -q -n $(WORKERS) --dist worksteal
# Tests start many processes. Where PYTHONDONTWRITEBYTECODE is set, each would compile the package again.
ENVIRONMENT := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
# Temporary files in memory where there is room.
IN_MEMORY := $(ENVIRONMENT) tests/in_memory.sh

.PHONY: venv services demo test test-slow test-pythons lint clean

venv: .venv/for-tests

# Made anew after a change: a package that is no longer named leaves too.
.venv/for-demo: pyproject.toml constraints.txt
	@echo "Installing into .venv (once, some minutes): $(DEMO_EXTRAS)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python $(INSTALL) -c constraints.txt -e ".[$(DEMO_EXTRAS)]"
	@touch $@

.venv/for-tests: .venv/for-demo
	@echo "Installing into .venv (once): $(TEST_EXTRAS)"
	@$(BIN)/python $(INSTALL) -c constraints.txt -e ".[$(TEST_EXTRAS)]"
	@touch $@

demo: .venv/for-demo
	@$(BIN)/edge-hal demo

test: .venv/for-tests
	@$(IN_MEMORY) $(BIN)/python $(PYTEST) -m "not slow"

# A test whose program is not installed is skipped, with the reason.
test-slow: .venv/for-tests
	@$(ENVIRONMENT) $(BIN)/python $(PYTEST) -m slow

# The programs that slow tests start, from Debian's packages.
SERVICES := chromium chromium-driver ffmpeg fonts-dejavu-core mmdebstrap mosquitto postgresql qemu-user-static
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

services:
	$(SUDO) apt-get update -qq
	$(SUDO) apt-get install -y -qq --no-install-recommends $(SERVICES)

# The tests that need no torch, on the other Pythons; 3.10 with the numpy and the OpenCV of JetPack 6's age.
test-pythons: test-python3.10 test-python3.12 test-python3.13

test-python%:
	@if ! python$* -c pass 2> /dev/null; then \
	  echo "python$*: skipped, not installed"; \
	else \
	  echo "python$*:" && $(MAKE) --silent .venv-$*/ready && $(IN_MEMORY) .venv-$*/bin/python $(PYTEST) -m "not slow"; \
	fi

.venv-%/ready: pyproject.toml constraints-310.txt
	@python$* -m venv --clear .venv-$*
	@.venv-$*/bin/python $(INSTALL) $(if $(filter 3.10,$*),-c constraints-310.txt) -e ".[camera,test]"
	@touch $@

lint: .venv/for-tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p edge_hal -p tests
	@MYPYPATH=benchmarks $(BIN)/mypy benchmarks
	@$(BIN)/hadolint containers/*

clean:
	rm -rf .venv .venv-3.* build dist *.egg-info
