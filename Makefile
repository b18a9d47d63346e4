# `make help` lists what there is. Only Python 3.11+ with pip, and make, are presumed.

PYTHON ?= python3
SOURCE ?= $(if $(wildcard data/chest_xray),data/chest_xray,data/sample)
PLAIN :=
TUNING :=
ifeq ($(SOURCE),data/sample)
RECIPE ?= sample
BACKBONE ?= $(if $(WEIGHTS),,demo)
ifeq ($(RECIPE),sample)
PLAIN := sample-plain# which is trained on, too, so that the report compares
endif
ifeq ($(BACKBONE),demo)
# All but the first stage of the demo's small network, which has learnt less than ImageNet's have.
TUNING := --learning-rate 0.01 --fine-tune-layers 48 --fine-tune-learning-rate 0.001
BENCH_WEIGHTS := random
endif
else
RECIPE ?= even
endif
BENCH_WEIGHTS ?= $(or $(WEIGHTS),imagenet)
XRAYS ?= ../shared/data/chest_xray_full/train

VENV := .venv
PY := $(VENV)/bin/python
# The values reach the shell as environment variables, never as text of a command: they may hold spaces and quotes.
export SOURCE RECIPE BACKBONE WEIGHTS BENCH_WEIGHTS SEED WORKERS EPOCHS XRAYS PYTHON
NAME = "$$(basename "$${RECIPE%.y*ml}")"
BUILD = $(PY) -m augment build --source "$$SOURCE" $${SEED:+--seed "$$SEED"} $${WORKERS:+--workers "$$WORKERS"}
OPTIONS = $${BACKBONE:+--backbone "$$BACKBONE"} $${WEIGHTS:+--weights "$$WEIGHTS"} $${SEED:+--seed "$$SEED"} $(TUNING) \
	$${EPOCHS:+--epochs "$$EPOCHS" --fine-tune-epochs "$$EPOCHS"}
FIT = $(PY) -m train fit $(OPTIONS)
# Two tests at a time: most start programs and wait for them, or trace networks, which one core does.
TWO = TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal
STUDY = runs/original runs/original-balanced runs/augment1 runs/augment2 runs/even

.DEFAULT_GOAL := help
.PHONY: help augment train study ablation test quick bench bench-train lint format lock clean source

help:  ## Say what there is
	@echo "make TARGET [SOURCE=folder] [RECIPE=name or file] [SEED=n] [WORKERS=n] [WEIGHTS=imagenet, random or file] [EPOCHS=n]"
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12
	@printf 'Now: SOURCE=%s RECIPE=%s WEIGHTS=%s\n' "$$SOURCE" "$$RECIPE" "$${WEIGHTS:-$${BACKBONE:-imagenet}}"

augment: source  ## Build the set of RECIPE from SOURCE (data/chest_xray, or a synthetic sample)
	@$(BUILD) --recipe "$$RECIPE"

train: augment  ## Build the set if it isn't there, train on it, report, and say where the results are
ifneq ($(PLAIN),)
	@$(BUILD) --recipe $(PLAIN) && $(FIT) manifests/$(PLAIN).csv
endif
	@$(FIT) manifests/$(NAME).csv
	@$(PY) -m train report $(addprefix runs/,$(PLAIN)) runs/$(NAME) --out runs/$(NAME)/report.html

study: source  ## Build the study's three sets and an even one, train on each, and with class weights on the first, compare and report
	@test "$$SOURCE" != data/sample || { echo "make study: give SOURCE=folder, or put the X-rays under data/chest_xray"; exit 2; }
	@for recipe in original augment1 augment2 even; do \
		$(BUILD) --recipe $$recipe && $(FIT) manifests/$$recipe.csv || exit; \
	done
	@$(FIT) manifests/original.csv --class-weight balanced --run runs/original-balanced
	@$(PY) -m train compare $(STUDY) && $(PY) -m train report $(STUDY)

ablation: source  ## Build RECIPE whole and without each of its parts, cross-validate each, and compare
	@$(PY) benchmarks/ablation.py "$$RECIPE" --source "$$SOURCE" $${WORKERS:+--workers "$$WORKERS"} $(OPTIONS)

test: lint  ## Lint, check formats and types, and run all tests
	@failed=0; $(TWO) --ignore tests/train -m "not slow" || failed=1; \
	$(PY) -m pytest --ignore tests/train -m slow || failed=1; \
	for part in "tests/train/evaluation tests/train/features" tests/train/fitting \
		"tests/train --ignore tests/train/evaluation --ignore tests/train/features --ignore tests/train/fitting"; do \
		$(TWO) $$part || failed=1; \
	done; exit $$failed  # processes of their own: TensorFlow stays in memory

quick: $(VENV)/ready-dev  ## Run the tests that take seconds
	@$(TWO) -m "not slow"

bench: $(VENV)/ready-dev  ## Measure the builder beside others; XRAYS=folder of class folders of full-size images
	@$(PY) -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@$(PY) benchmarks/planning.py && $(PY) benchmarks/memory.py
	@$(PY) benchmarks/build.py "$$XRAYS" && $(PY) benchmarks/kinds.py "$$XRAYS"

bench-train: $(VENV)/ready-dev  ## Measure training beside plain Keras, on the set of RECIPE
	@$(BUILD) --recipe "$$RECIPE" && $(PY) benchmarks/training.py manifests/$(NAME).csv --weights "$$BENCH_WEIGHTS"

lint: $(VENV)/ready-dev
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy \
		&& $(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"  # its script has no -m

format: $(VENV)/ready-dev  ## Format the code
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

lock: $(VENV)/ready-dev  ## Resolve requirements*.in anew into the lock files
	@for name in requirements requirements-openvino requirements-int8 requirements-onnx requirements-tflite requirements-dicom requirements-parquet requirements-remote requirements-cluster requirements-cuda requirements-dev; do \
		$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-header --no-annotate $$name.in -o $$name.txt || exit; \
	done

clean:  ## Remove the built sets, the sample and kept activations (runs and .venv stay)
	rm -rf data/augmented data/.*.partial data/activations data/sample manifests/*.csv manifests/*.json manifests/*.html

# The synthetic sample, drawn where no other source is given.
source: $(VENV)/ready
	@test "$$SOURCE" != data/sample || test -e data/sample || $(PY) -m augment sample data/sample

# The lock file's packages, installed once; a second make finds the mark and installs nothing.
$(VENV)/ready: requirements.txt
	@"$$PYTHON" -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Evenset needs Python 3.11 or newer, this is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	@test -x $(PY) || "$$PYTHON" -m venv $(VENV)
	@echo "Installing the packages of requirements.txt into $(VENV), once" && $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	@echo "Installing the packages of requirements-dev.txt into $(VENV), once" && $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
