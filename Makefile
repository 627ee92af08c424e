# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP = -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
FILES = pyproject.toml constraints.txt

.PHONY: demo test check benchmark docs docs-version release-check clean

# A light environment of its own: no torch, no keras.
.venv-demo/ready: $(FILES)
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python $(PIP) --editable .
	touch $@

.venv/ready: $(FILES)
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) --editable '.[dev]'
	touch $@

demo: .venv-demo/ready  ## The main job on real images that ship with the package.
	.venv-demo/bin/knownot demo -o demo-out

test: .venv/ready  ## The whole suite.
	.venv/bin/python -m pytest -n 2 --dist worksteal --durations=20 --durations-min=1 $(ARGS)

check: .venv/ready  ## Lint, format and types.
	.venv/bin/ruff check src tests scripts benchmarks
	.venv/bin/ruff format --check src tests scripts benchmarks
	.venv/bin/mypy

benchmark: .venv/ready  ## Measure on the real images and classifiers beside the checkout.
	.venv/bin/python benchmarks/quality.py
	.venv/bin/python benchmarks/guarantee.py
	.venv/bin/python benchmarks/memory.py
	.venv/bin/python benchmarks/speed.py
	.venv/bin/python benchmarks/neighbours.py
	.venv/bin/python benchmarks/scale.py
	.venv/bin/python benchmarks/references.py
	.venv/bin/python benchmarks/audit.py
	.venv/bin/python benchmarks/fooling.py
	.venv/bin/python benchmarks/remedies.py
	.venv/bin/python benchmarks/tables.py resnet20-onnx
	.venv/bin/python benchmarks/peers.py --install .venv-peers

docs: .venv/ready  ## What docs/ has from the code and from measured tables, and the documentation site, into site/.
	.venv/bin/python scripts/docs_hook.py
	.venv/bin/python scripts/docs_notebook.py
	.venv/bin/python scripts/docs_results.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

docs-version: .venv/ready  ## Put this version of the site beside the others, on the branch gh-pages: make docs-version VERSION=0.1
	DOCS_VERSIONS=mike .venv/bin/mike deploy --update-aliases $(VERSION) latest

release-check: .venv/ready  ## Wheel and source archive, twine, and the wheel in a clean environment of each Python.
	.venv/bin/python $(PIP) build twine
	.venv/bin/python scripts/release_check.py

clean:
	rm -rf .venv .venv-demo .venv-peers site demo-out .pytest_cache .mypy_cache .ruff_cache
