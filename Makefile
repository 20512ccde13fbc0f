# make digits and make test do everything on a fresh machine with Python >= 3.11 and make
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: digits studies docs live live-page test test-all test-kernels test-slow test-faults test-compile smoke lint lock

# Tables 1 and 2 of the paper on digits: three models, the sweep over w and T, runs/digits-sweep/report.html
digits: $(VENV)/done
	$(BIN)/python -m experiments.paper --table=1 --scale=digits
	$(BIN)/python -m experiments.paper --table=2 --scale=digits

# what guidance really samples: experiments/studies/README.md. Of runs/digits-p0.1, which make digits trains, and of the
# clothes where data/fashion_mnist_16 has been prepared
STUDIES ?= runs/studies
STUDIED ?= runs/digits-p0.1 \
    $(if $(wildcard data/fashion_mnist_16),experiments/results/fashion_mnist_16/model.safetensors)
studies: $(VENV)/done
	for study in $(addprefix studies.,laws density gaussians truncation temperature sequences edge dimension flow2d rectified2d); do \
	    $(BIN)/python -m experiments.$$study --out=$(STUDIES) || exit 1; done
	for run in $(STUDIED); do \
	    $(BIN)/python -m experiments.studies.temperature --run=$$run --num_images=400 --num_steps=32 --out=$(STUDIES) && \
	    $(BIN)/python -m experiments.studies.likelihood --run=$$run --num_images=16 --w=0,1,4 --out=$(STUDIES) && \
	    $(BIN)/python -m experiments.studies.curl --run=$$run --num_images=16 --out=$(STUDIES) || exit 1; done

test: $(VENV)/done
	$(BIN)/python -m pytest -m "not slow and not faults and not compilers"

# what is exact to rounding, by two more kernels of numpy's OpenBLAS than the one that it chooses on this machine
KERNELS ?= Haswell Zen
EXACT := $(addprefix tests/,diffusion $(addsuffix .py,$(addprefix evaluation/test_,scores measure) store/test_averages data/test_resize))
test-kernels: $(VENV)/done
	for kernel in $(KERNELS); do \
	    OPENBLAS_CORETYPE=$$kernel $(BIN)/python -m pytest $(EXACT) || exit 1; done

# everything but faults and the compilers of devices that are not there
test-all: test test-slow

# what takes longer: runs that train, notebooks, programs of many shapes, damage to files
test-slow: $(VENV)/done
	$(BIN)/python -m pytest -m slow

# runs that are killed, stopped, starved of disk and spread over processes: prints how many faults were survived;
# KILLS=200 kills one of them so often
KILLS ?= 20
test-faults: $(VENV)/done
	KILLS=$(KILLS) $(BIN)/python -m pytest -m faults -n 0

# a tiny network through the compilers of TPUs and GPUs, which it installs: in an environment of their own, since jax
# looks for their devices at every start: make test-compile VENV=.venv-compile
test-compile: $(VENV)/done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[compile]'
	XLA_FLAGS= $(BIN)/python -m pytest -m compilers tests/perf/test_compile.py  # as the command compiles

# the main job at its smallest, and the closed forms
smoke: $(VENV)/done
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest tests/diffusion/test_process.py tests/diffusion/test_samplers.py tests/test_house.py

lint: $(VENV)/done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# the site, _site/html/index.html; the notebooks are run for it, a warning is an error
docs: live-page
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -c docs . _site/html
	rm -rf _site/html/live && cp -r _site/live _site/html/live

# the live page alone, which draws guided pictures in the browser; needs npm
PORT ?= 8000
live: live-page
	@echo "http://127.0.0.1:$(PORT)/ has the page; Ctrl-C ends it"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _site/live $(PORT) 2>/dev/null

live-page: $(VENV)/done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt --editable '.[onnx]'
	$(BIN)/python docs/live/build.py

# exact pins for every supported Python, from the ranges in pyproject.toml
lock: $(VENV)/done
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-annotate --no-header --upgrade \
	    pyproject.toml -o requirements.txt

$(VENV)/done: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
