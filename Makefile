# `make` alone lists the targets. Each sets up .venv by itself and is quick when nothing changed.
.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow lint lock images clean

PYTHON ?=
TORCH_PIP_ARGS ?=
ARGS ?=
export PYTHON TORCH_PIP_ARGS
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  ARGS="..."            further arguments of run, test, test-slow and lock'
	@echo '  PYTHON=...            the interpreter to build .venv with (3.11 or newer)'
	@echo '  TORCH_PIP_ARGS="..."  how pip finds a CPU build of torch, where it is not the default'

setup: ## only build the environment .venv
	@tools/setup_env.sh

run: setup ## retrain on the bundled data by the whole pipeline
	@.venv/bin/xcflow run $(ARGS)

# Files are spread over the cores in the order of tests/conftest.py, one thread each: small products
# gain nothing from more.
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder --durations=10

test: setup ## run the test suite
	@$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup ## run the long tests: kills, disturbances, absent servers, sweeps, drift
	@$(PYTEST) -m slow $(ARGS)

lint: setup ## ruff, mypy, import contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/python -m mypy
	@.venv/bin/lint-imports

COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --universal \
	--python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url --quiet
# Each image holds a part of the one resolution. Only torch's CUDA libraries are resolved apart.
COMPILE_PART = $(COMPILE) --constraints requirements.lock

lock: setup ## bring requirements.lock and the images' locks in line with pyproject.toml (ARGS=--upgrade: newest versions)
	@$(COMPILE) pyproject.toml --all-extras --no-emit-package torch \
		--output-file requirements.lock $(ARGS)
	@$(COMPILE_PART) pyproject.toml --extra pipelines --extra tracking --extra onnx \
		--no-emit-package torch --output-file docker/requirements/train.lock
	@for part in build mlflow serve; do \
		$(COMPILE_PART) docker/requirements/$$part.in \
			--output-file docker/requirements/$$part.lock || exit; done
	@$(COMPILE_PART) --no-config docker/requirements/torch-gpu.in \
		--output-file docker/requirements/torch-gpu.lock $(ARGS)

images: ## build the images of docker/ (docker or buildah; docker/README.md)
	@docker/build.sh $(ARGS)

clean: ## remove .venv, caches and build outputs (keeps .xcflow)
	@rm -rf .venv .venv.lock .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		build dist
