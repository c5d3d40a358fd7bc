PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet

CODE := ternbin rtl sim models tests benchmarks setup.py
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: run test quick lint types setup clean

run: setup
	$(VENV)/bin/ternbin run

# Everything: what needs no compiler first, then the tests that wait longest for one.
test: lint
	$(PYTEST)

# What needs no compiler and no type checker, in about eight minutes.
quick: lint
	$(PYTEST) -m "not build and not types and not soak and not real"

lint: setup
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)

# Alone, and with --update after errors became fewer; part of `make test` as tests/test_types.py.
types: setup
	$(VENV)/bin/python tests/check_types.py

setup: $(READY)

$(READY): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ternbin needs Python 3.11 or later (set PYTHON=...)" >&2; exit 3; }
	@for tool in g++ make perl; do command -v $$tool >/dev/null || { echo "$$tool is missing: install your system's compiler tools (Debian: apt install build-essential perl)" >&2; exit 3; }; done
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch==2.13.0
	PYTHONWARNINGS='ignore:Editable installation' $(PIP) -e '.[dev]'  # a warning about folders named like the package
	@for part in rtl sim models; do ln -sfn ../$$part ternbin/$$part; done  # for editors and the type checker
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info reports/run
