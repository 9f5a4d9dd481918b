# For people who work on Sightline; its users need no make. `make PYTHON=python3.12 setup` chooses an interpreter.
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
PHOTOS ?= photos
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
READY := .venv/.ready

.PHONY: setup demo run test test-ray test-browser lint check bench labs docs screenshots sbom package clean

setup: $(READY)

# The stamp is a copy of pyproject.toml: while that says the same, nothing is installed and no network is needed.
$(READY): pyproject.toml
	cmp -s pyproject.toml $(READY) || { \
	  { test -x $(BIN)/python || $(PYTHON) -m venv .venv; } && $(BIN)/python -m pip install -e ".[dev]"; }
	cp pyproject.toml $(READY)

demo: $(READY)
	$(BIN)/sightline demo

run: $(READY)
	$(BIN)/sightline run "$(PHOTOS)"

test: $(READY)
	$(PYTEST)

# The pages in Chromium and Firefox, with axe-core for accessibility. What is missing is installed, or its tests are skipped.
AXE := .venv/axe-core
test-browser: $(READY)
	sh scripts/install_browsers.sh
	$(BIN)/python scripts/npm_package.py axe $(AXE) || echo "no axe-core: the accessibility tests are skipped"
	axe="$$(ls $(CURDIR)/$(AXE)/axe-*.min.js 2>/dev/null | tail -n 1)"; test -z "$$axe" || export SIGHTLINE_AXE="$$axe"; \
	  $(BIN)/python -m pytest -n 2 --dist loadfile -m browser tests/browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Clusters of several nodes on this machine, with nothing else beside them.
test-ray: $(READY)
	$(BIN)/python -m pytest -m ray

# All tests, the slow ones too; those on Ray and in browsers last.
check: lint
	$(PYTEST) -m "not browser and not ray"
	$(MAKE) test-ray
	$(MAKE) test-browser

# The site: build/site/index.html. A broken link is an error.
docs: $(READY)
	$(BIN)/python docs/make_gallery.py
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . build/site

# The pictures of README and docs, of the gallery's reports in Chromium.
screenshots: $(READY)
	$(BIN)/python docs/make_gallery.py
	$(BIN)/python docs/make_screenshots.py

# A wheel and an sdist in dist/, each installed in a new environment that runs the demo.
package: $(READY)
	$(BIN)/python scripts/check_package.py

# The software bill of materials of this environment without its development tools: dist/sbom.json (CycloneDX).
sbom: $(READY)
	$(BIN)/python scripts/make_sbom.py dist/sbom.json

# The labs of docs/labs on the photographs in DATA: `make labs LAB=flowers DATA=folder`. `make labs SHORT=1` takes a few images and one
# epoch and records nothing; `make check` runs the same in tests/docs/test_labs.py.
labs: $(READY)
	$(BIN)/python scripts/labs.py $(LAB) $(if $(DATA),--data "$(DATA)") $(if $(SHORT),--short)

bench: $(READY)
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist sightline-demo
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
