# Everything runs from a virtual environment of its own; the first target that needs it builds it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READERS := .venv-readers/.ready
MINUTES ?= 10

.PHONY: install readers demo check test real slow fuzz format clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cuvee needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

readers: $(READERS)  ## an environment of their own for other readers of our exports; tests that need it skip without it

$(READERS): $(READY) .ci/readers.txt .ci/readers-constraints.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-readers
	$(BIN)/uv pip install --quiet --python .venv-readers/bin/python --constraint .ci/readers-constraints.txt --requirement .ci/readers.txt
	touch $@

demo: $(READY)  ## generate a pool with planted defects, curate it, train on it, write the report
	$(BIN)/cuvee demo --out demo

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(READY)  ## the tests, real ones on one shard per source included
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 40

slow: $(READY)  ## the few tests that take minutes
	$(BIN)/python -m pytest -m slow

fuzz: $(READY)  ## damaged tars and images for MINUTES (default 10); what breaks something is left in tests/fuzz/corpus
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)

real: $(READY)  ## the whole real pool, where it is there
	$(BIN)/cuvee run jobs/recipes/real-pool.yaml

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-readers build *.egg-info
