PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: run test setup lint clean

run: setup
	$(VENV)/bin/ternbin run

test: setup
	$(VENV)/bin/ruff check ternbin rtl sim models tests benchmarks
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ternbin needs Python 3.11 or later (set PYTHON=...)" >&2; exit 3; }
	@for tool in g++ make perl; do command -v $$tool >/dev/null || { echo "$$tool is missing: install your system's compiler tools (Debian: apt install build-essential perl)" >&2; exit 3; }; done
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	@for part in rtl sim models; do ln -sfn ../$$part ternbin/$$part; done  # for editors and the type checker
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info reports/run
