# make repro     from a fresh clone to the board: environment, pipeline, table
# make test      lint, format, types, and the tests that take no longer than a few seconds each; WORKERS=8 for more processes
# make test-all  lint, format, types, all tests
# make ladder    what the winners did, rung by rung on the soundscapes, the board, and what each gains; SEEDS="1 2" for more seeds
# make clean     drop the environment and the caches of the tools; results and mlflow.db stay

unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
# without compiled files every start of dvc would compile 750 modules: 2.9 s instead of 1.6 s for nothing to do
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHONS := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# compiling 5 GB of packages would take a minute; Python does it for what is imported
INSTALL := .venv/bin/python -m pip install --quiet --no-compile --no-deps

LADDER := exp0051 stage1 stage2 stage3 stage3-nested stage3-cycle2 stage3-hard stage3-not_isolated birdnet birdnet-stage2 \
	birdnet-stage3 birdnet-rounds birdnet-recording birdnet-not_isolated birdnet-with_stage1 best best-prevalence
SEEDS :=

WORKERS := 2
# one thread each: two processes that both take two threads wait for each other
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses=$(WORKERS)

.PHONY: repro test test-all ladder lint clean

repro: .venv/runtime
	callboard repro
	callboard board

test: lint
	$(PYTEST) --dist=worksteal -m "not slow"

# files whole, since building what their tests share takes minutes; slow tests come first, see tests/conftest.py, and wait
# for what they start a third of the time, so one process more than processors
test-all: lint
	$(PYTEST) --numprocesses=$$(($(WORKERS) + 1)) --dist=loadfile --no-loadscope-reorder

ladder: .venv/birdnet
	callboard repro
	callboard run $(LADDER)
	@for seed in $(SEEDS); do callboard run --seed $$seed $(LADDER) || exit 1; done
	callboard board
	callboard gains $(LADDER)
	callboard gains $(LADDER) --against exp0051

lint: .venv/dev
	ruff check
	ruff format --check
	mypy

.venv/runtime: requirements.lock pyproject.toml
	@git rev-parse --git-dir > /dev/null || { echo "error: git is missing or this is not a clone; DVC needs both" >&2; exit 1; }
	@.venv/bin/python -m pip --version > /dev/null 2>&1 || { \
	  for python in $(PYTHONS); do "$$python" -c '$(IS_NEW_ENOUGH)' 2> /dev/null && exec "$$python" -m venv --clear .venv; done; \
	  echo "error: no Python 3.11 or newer among: $(PYTHONS); name one with make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing $$(grep -c == requirements.lock) packages into .venv; a minute or two"
	@$(INSTALL) -r requirements.lock
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/runtime requirements-dev.lock
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

.venv/birdnet: .venv/runtime requirements-birdnet.lock
	@$(INSTALL) -r requirements-birdnet.lock
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
