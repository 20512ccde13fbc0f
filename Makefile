# make digits and make test do everything on a fresh machine with Python >= 3.11 and make
PYTHON ?= python3
BIN := .venv/bin

.PHONY: digits test test-slow lint lock

digits: .venv/done
	$(BIN)/python -m experiments.digits

test: .venv/done
	$(BIN)/python -m pytest -m "not slow"

# what takes minutes: compiling the whole ImageNet-64 step
test-slow: .venv/done
	$(BIN)/python -m pytest -m slow

lint: .venv/done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# exact pins for every supported Python, from the ranges in pyproject.toml
lock: .venv/done
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-annotate --no-header pyproject.toml -o requirements.txt

.venv/done: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python >= 3.11 is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
