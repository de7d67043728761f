# `make demo` and `make test` need Python 3.11 and PyPI, nothing else. PYTHON=python3.12 takes another one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo matrix test install bench clean

# Three of the ten recipes, in some twelve minutes on two cores; `make matrix` runs all ten, in some thirty.
demo: $(VENV)/installed
	$(BIN)/optkit run baseline_fp32 ptq_int8 qat_gelu10 --task sample

matrix: $(VENV)/installed
	$(BIN)/optkit run recipes/*.py --task sample

test: $(VENV)/installed
	$(BIN)/python -m pytest

# benchmarks/serving.py is run by hand: it takes the folder of a built engine.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/training.py

install: $(VENV)/installed

# torch comes first and by its exact version, so that no other package asks for the CUDA build.
$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
