# `make demo` and `make test` need only this file, a Python and a network: they create a virtual environment in .venv/,
# one per Python version, install missing packages, and run. PYTHON=python3.13, or any path, selects the Python.
# POSIX sh and make 3.81, as on macOS.

PYTHON ?=
# Further arguments of pytest: make test ARGS="tests/efficientdet/test_boxes.py -x".
ARGS ?= tests
# Number of processes that share the test files.
JOBS ?= 2
# Selects the slow tests by an expression of marks; those marked long take half an hour and more.
SLOW ?= slow and not long

# "py311 /path/of/python" for the first Python 3.10-3.13 that can create a virtual environment. Versions installed by
# pyenv are found even if `pyenv global` does not name them: the shim on PATH fails, the file below versions/ works.
PROBE = import ensurepip, sys, venv; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit(1); \
	print("py%d%d" % v, sys.executable)
FOUND := $(shell \
	for name in $(or $(PYTHON),python3.11 python3 python3.13 python3.12 python3.10); do \
		for python in "$$name" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/"$$name"; do \
			"$$python" -c '$(PROBE)' 2>/dev/null && exit; \
		done; \
	done)
LANE := $(word 1,$(FOUND))
BASE_PYTHON := $(wordlist 2,99,$(FOUND))

VENV := .venv/$(LANE)
RUN := $(VENV)/bin/python
CONSTRAINTS := $(if $(filter py310 py311,$(LANE)),constraints-py311.txt,constraints-py313.txt)
# Not requirements-openxla.txt, which is for an environment of its own.
REQUIREMENTS := requirements-dev.txt requirements-onnx.txt requirements.txt
# The name contains a checksum: the same requirements are never installed twice, changed ones always are.
INSTALLED := $(VENV)/installed-$(shell cat $(REQUIREMENTS) $(CONSTRAINTS) | cksum | cut -d ' ' -f 1)

.DELETE_ON_ERROR:
.PHONY: help demo test slow lint clients setup python clean

help:
	@echo "make demo    sample images -> training -> AP -> export -> drawn detections, in demo/"
	@echo "make test    fast tests"
	@echo "make slow    slow tests: whole models, training, exports"
	@echo "make lint    ruff format --check and ruff check"
	@echo "make clients exported files in MediaPipe, LiteRT, ONNX Runtime, ...; needs Python 3.11 and 3.9, and ../shared"
	@echo "make setup   only the virtual environment, $(VENV)"
	@echo "make clean   remove .venv/, demo/, tutorial/ and caches"
	@echo "PYTHON=python3.13, or any path, selects the Python (now: $(or $(BASE_PYTHON),none found))"

test: $(INSTALLED)
	$(RUN) -m pytest -c tests/pytest.ini -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

slow: $(INSTALLED)
	$(RUN) -m pytest -c tests/pytest.ini -m "$(SLOW)" -n $(JOBS) --dist loadfile $(ARGS)

lint: $(INSTALLED)
	@status=0; $(RUN) -m ruff format --check . || status=1; $(RUN) -m ruff check . || status=1; exit $$status

# Into .venv/clients/, about 3 GB, downloaded once. With ARGS=--write the figures go into docs/exports.md.
clients: ARGS :=
clients: $(INSTALLED)
	$(RUN) tests/clients/run_clients.py $(ARGS)

setup: $(INSTALLED)

python:
ifeq ($(FOUND),)
	@echo "no Python 3.10-3.13 with venv found$(if $(PYTHON), as $(PYTHON)); install one (Debian and Ubuntu: apt-get \
	install python3.11 python3.11-venv; macOS: brew install python@3.11; pyenv: pyenv install 3.11) or pass one: \
	make PYTHON=/path/to/python3.11" >&2; exit 1
endif
	@echo "$(BASE_PYTHON), packages in $(VENV)"

# Created anew if it is missing, or if its Python was uninstalled.
$(RUN): | python
	"$(BASE_PYTHON)" -m venv --clear $(VENV)

$(INSTALLED): $(RUN)
	@echo "installing missing packages into $(VENV); TensorFlow and the others are about 850 MB, downloaded once"
	@rm -f $(VENV)/installed-*
	$(RUN) -m pip install --disable-pip-version-check \
		-r requirements.txt -r requirements-dev.txt -c $(CONSTRAINTS)
	@touch $@

DEMO := demo

demo: $(INSTALLED)
	@echo "== 1/5 sample images: shapes with exact boxes, as COCO JSON"
	@# Not again in a resumed demo: --data would see changed files.
	test -e $(DEMO)/shapes/train/annotations.json || \
		$(RUN) dataset/create_sample_data.py --output_dir=$(DEMO)/shapes/train --num_images=1600 --seed=1 --image_size=128
	test -e $(DEMO)/shapes/val/annotations.json || \
		$(RUN) dataset/create_sample_data.py --output_dir=$(DEMO)/shapes/val --num_images=200 --seed=2 --image_size=128
	$(RUN) dataset/create_sample_data.py --output_dir=$(DEMO)/new --num_images=12 --seed=3 --image_size=400
	@echo "== 2/5 training and AP; resumes if it was interrupted"
	$(RUN) main.py --mode=train_and_eval --data=$(DEMO)/shapes --model_name=efficientdet-lite0 \
		--hparams=configs/demo.yaml --model_dir=$(DEMO)/model --eval_batch_size=8 --tf_random_seed=1
	@echo "== 3/5 export"
	@rm -rf $(DEMO)/saved_model $(DEMO)/drawn
	$(RUN) model_inspect.py --runmode=saved_model --ckpt_path=$(DEMO)/model --saved_model_dir=$(DEMO)/saved_model
	@echo "== 4/5 detections drawn"
	$(RUN) model_inspect.py --runmode=infer --ckpt_path=$(DEMO)/model --batch_size=4 \
		--input_image=$(DEMO)/new/images --output_image_dir=$(DEMO)/drawn
	@echo "== 5/5 files written (images with boxes: $(DEMO)/drawn; AP: the table above)"
	@find $(DEMO) -type f ! -path "*/images/*" ! -path "*/report_files/*" | sort
	@for folder in $(DEMO)/shapes/*/images $(DEMO)/new/images; do echo "$$folder: $$(ls $$folder | wc -l) images"; done

clean:
	rm -rf .venv demo tutorial .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
