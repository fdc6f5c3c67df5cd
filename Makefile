# make train: set up and train. make check: lint, check types, run the quick tests, in less than a minute.
# make test: set up, lint, check types, run the tests; make test-all: all of them.
# make mutants: change the sources, the tests must notice. make sanitize: run the C++ kernels under sanitizers.
# make arm: run them as on 64-bit ARM, in emulation.
# make matrix: the core of the tests with other versions. make constraints: write constraints.txt.
# make bench: measure. make docs: set up, build the site.
PYTHON ?= python3
EXTRAS ?= dev,box2d,mujoco
VENV := .venv
comma := ,
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Processes that run the tests, about 1 GB each. The tests of a file stay together: they share trained runs, compiled
# graphs, a Ray cluster. Files with few tests take the longest, and would come last if they were reordered.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
SEED ?= 1
# About 20 s of CPU: no training runs, no compiler. mypy takes 30 s the first time, a second with its cache.
QUICK := tests/test_architecture.py tests/schedules tests/settings tests/storage tests/simic/test_advantages.py \
	tests/simic/test_losses.py tests/simic/test_rates.py tests/simic/test_scan.py
RUN_DIR ?= runs/CartPole-v1/make-train-$(shell date +%Y%m%d-%H%M%S)-$(SEED)

.PHONY: train check test test-all lint matrix constraints bench sanitize arm docs site mutants mutate setup clean

train: setup
	$(BIN)/esper ppo --env CartPole-v1 --lr-warmup-frac 0.05 --lr-decay cosine --seed $(SEED) --run-dir $(RUN_DIR)
	$(BIN)/esper evaluate $(RUN_DIR) --episodes 20

check: lint
	$(BIN)/python -m pytest $(QUICK)

test:
	$(MAKE) lint EXTRAS=$(EXTRAS),atari,hub,minatar,minigrid,mlflow,onnx,pages,popgym,ray,video,wandb
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Half an hour: also what is too long to be run with every change.
test-all:
	$(MAKE) test PYTEST_FLAGS=--all

# An environment in .venvs for each: MATRIX='3.12 3.11/2.9.1' are a Python with the pinned torch, one with another torch.
# By default the Pythons that are there with the pinned torch, and the first of them with the oldest torch.
matrix:
	$(PYTHON) .ci/matrix.py $(MATRIX)

# Pins stay while they fit; UPGRADE='torch numpy' takes the newest of these, UPGRADE=all of everything.
constraints: setup
	$(BIN)/python .ci/constraints.py $(UPGRADE)

# Minutes; benchmarks/bench.py --full is what docs/performance.md shows.
bench: setup
	$(BIN)/python benchmarks/bench.py --output performance.json

# A minute. With addresses in random places, ThreadSanitizer does not start on newer kernels of Linux.
sanitize:
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
	for kind in address,undefined,float-cast-overflow thread; do \
		$(CXX) -std=c++20 -O1 -g -march=native -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror -pthread \
			-fsanitize=$$kind -fno-sanitize-recover=all tests/simic/engines/sanitize.cpp -o "$$folder/sanitize" && \
		setarch -R "$$folder/sanitize" && echo "$$kind: nothing found" || exit 1; \
	done

# Some minutes, with Debian's g++-aarch64-linux-gnu and qemu-user: what the kernels compute as on 64-bit ARM is what they
# compute on this machine, to within rounding.
ARM := aarch64-linux-gnu
NUMBERS := -std=c++20 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast -Wall -Wextra -Werror -pthread \
	tests/simic/engines/sanitize.cpp -o

arm:
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
	$(CXX) -march=native $(NUMBERS) "$$folder/here" && $(ARM)-g++ $(NUMBERS) "$$folder/arm" && \
	"$$folder/here" numbers > "$$folder/here.txt" && \
	qemu-aarch64 -L /usr/$(ARM) "$$folder/arm" numbers > "$$folder/arm.txt" && \
	paste "$$folder/here.txt" "$$folder/arm.txt" | \
	awk '$$1 != $$4 || ($$2 - $$5)^2 + ($$3 - $$6)^2 > (1e-5 * (1 + $$2))^2 { print; off++ } \
		END { print off + 0 " of " NR " sums differ"; exit off > 0 }'

# From docs/, README.md and the sources, which also fill tables in docs/; begins at site/index.html.
docs:
	$(MAKE) site EXTRAS=docs

site: setup
	$(BIN)/python docs/tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# docs/mutants.md. All of them anew, or those of MUTANTS='esper.simic.losses*' alone.
mutants:
	$(MAKE) mutate EXTRAS=dev,mutants

mutate: setup
	$(if $(MUTANTS),,rm -rf mutants)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mutmut run --max-children $(WORKERS) $(MUTANTS)
	$(BIN)/mutmut results --all true | $(BIN)/python tests/mutant_scores.py

# Installs again only when the declared dependencies or the chosen extras have changed.
setup: $(STAMP)-$(subst $(comma),-,$(EXTRAS))

$(STAMP)-%: pyproject.toml constraints.txt
	@echo "installing Esper with $(EXTRAS) in $(VENV): the first time some minutes, torch is large"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) .venvs site mutants
