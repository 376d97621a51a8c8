# `make demo` and `make test` make .venv first, each with what it needs. Neither asks for root.
PYTHON ?= python3
BIN := .venv/bin
# pip prints errors and nothing else.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
DEMO_EXTRAS := camera,train,export,plot
TEST_EXTRAS := $(DEMO_EXTRAS),test,tensorrt-rtx

.PHONY: venv demo test test-slow lint clean

venv: .venv/for-tests

# Made anew after a change: a package that is no longer named leaves too.
.venv/for-demo: pyproject.toml constraints.txt
	@echo "Installing into .venv (once, some minutes): $(DEMO_EXTRAS)"
	@$(PYTHON) -m venv --clear .venv
	@$(INSTALL) -e ".[$(DEMO_EXTRAS)]"
	@touch $@

.venv/for-tests: .venv/for-demo
	@echo "Installing into .venv (once): $(TEST_EXTRAS)"
	@$(INSTALL) -e ".[$(TEST_EXTRAS)]"
	@touch $@

demo: .venv/for-demo
	@$(BIN)/edge-hal demo

test: .venv/for-tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow"
