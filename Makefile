# Two commands: `make demo` installs everything and runs the demo; `make test` runs lint and all tests; each installs what is missing.
PYTHON ?= python3
INSTALLED := .venv/.installed

.PHONY: demo test install clean

demo: $(INSTALLED)
	.venv/bin/python run_suite.py run demo

test: $(INSTALLED)
	.ci/packages
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv
