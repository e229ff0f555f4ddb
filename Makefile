# A newcomer needs only `make demo` and `make test`; both create the environment first.
VENV ?= .venv
BIN = $(VENV)/bin

# Where an environment forbids it, each of some hundred processes that the tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test install lint docs nightly clean

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	# torch first and pinned: otherwise the newest build pulls gigabytes of CUDA. Python compiles what it imports, when
	# it does; to compile all of every package takes two thirds of the installation.
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: install  # exit code 1 is a verdict, which the report explains, and no fault of the demo
	$(BIN)/expunge demo || test $$? -eq 1

test: install
	# The checks leave a core idle, on which pytest meanwhile compiles, once for all workers, what it will collect.
	$(BIN)/python -m pytest --collect-only -qq > /dev/null 2>&1 & $(MAKE) lint; status=$$?; wait; exit $$status
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

nightly: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,federated,crypto,dp]'
	PATH="$(abspath $(BIN)):$$PATH" scripts/nightly

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build/site
