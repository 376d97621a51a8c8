# `make test` passes the tests; both it and the other targets make .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-slow lint clean

venv: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[camera,train,export,plot,test,tensorrt-rtx]"
	@# OpenCV's wheel wants libGL, which a bare machine lacks.
	@$(BIN)/python -c "import cv2" 2>/dev/null || \
	  (apt-get update -qq && apt-get install -y -qq libgl1 libglib2.0-0)
	touch $@

demo: venv
	$(BIN)/edge-hal demo

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow"

test-slow: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p edge_hal

clean:
	rm -rf .venv build *.egg-info
