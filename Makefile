# `make demo` and `make test` need Python 3.11 and PyPI, nothing else. PYTHON=python3.12 takes another one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GPU_VENV ?= .venv-gpu
TENSORRT ?= 11.2.1.*

.PHONY: demo matrix models test test-fast test-nightly test-libraries test-gpu install bench bench-gpu clean

# Three of the thirteen recipes on real pretrained weights, in some five minutes on two cores after the installation; `make
# matrix` runs all on the sample's own small model. The best one is published, and asked by a server that ends with the demo.
demo: $(VENV)/installed
	@$(BIN)/python examples/demo.py

matrix: $(VENV)/installed
	$(BIN)/optkit run recipes/*.py --task sample

test: $(VENV)/installed
	$(BIN)/python -m pytest

# Every recipe on a tiny model of every family, trained, served, published and asked; writes docs/models.md. Some 40 minutes
# on two cores. FAMILIES="bert xlmr" runs these alone.
models: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.models_table $(FAMILIES)

# Unit tests alone: no server, nothing that takes longer than a second. They wait for nothing, so that one process for each
# processor is enough; each has all modules to import.
test-fast: $(VENV)/installed
	$(BIN)/python -m pytest -n logical --maxprocesses 8 -m "not server and not slow and not gpu"

# Damaged files, answers and configurations, drawn anew each night: thousands for each door, in some ten minutes.
test-nightly: $(VENV)/installed
	$(BIN)/python -m pytest -m doors --hypothesis-profile nightly

# Folders for other libraries, loaded by these in an environment of their own, with the transformers that they need.
LIBRARIES_VENV := .venv-libraries
test-libraries: $(VENV)/installed
	$(PYTHON) -m venv $(LIBRARIES_VENV)
	$(LIBRARIES_VENV)/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(LIBRARIES_VENV)/bin/python -m pip install --quiet sentence-transformers==5.7.0 optimum-onnx==0.1.0 \
	    optimum-intel==1.27.0 nncf==3.4.0
	$(BIN)/python -m pytest tests/pipeline/test_library_folder.py

# On a machine with an NVIDIA GPU: what no other machine can show, in an environment with torch for CUDA and TensorRT.
test-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m pytest -m gpu -n 0

bench-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python benchmarks/gpu.py

# benchmarks/serving.py is run by hand: it takes the folder of a built engine.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/training.py

install: $(VENV)/installed

# torch comes first and by its exact version, so that no other package asks for the CUDA build. Python compiles what is imported
# when it is: all of it would take longer than anything else here.
# The second TensorRT is the older API that the code must also fit; the tests look its names up, nothing is built with it.
$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[cpu,signing,stores,tensorrt-builder,test]'
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --target $(VENV)/tensorrt-10.13 --upgrade tensorrt-cu12-bindings==10.13.3.9
	touch $@

# The builder without a GPU stays out: it is only asked where the tensorrt package is missing. TensorRT is that of the newest
# container of Triton, which then runs the plans.
$(GPU_VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(GPU_VENV)
	grep -v ^tensorrt constraints.txt > $(GPU_VENV)/constraints.txt
	$(GPU_VENV)/bin/python -m pip install --quiet --no-compile --constraint $(GPU_VENV)/constraints.txt \
	--editable '.[cpu,gpu,signing,stores,test]' 'tensorrt-cu13==$(TENSORRT)'
	touch $@

clean:
	rm -rf $(VENV) $(GPU_VENV) build *.egg-info
