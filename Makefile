# Everything from a fresh clone, given python3 (3.11 or newer) and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?= ../shared/coco-dev
CALTECH ?= ../shared/caltech-101
MORE_PHOTOS ?= ../shared/photos
FOREGROUND ?= ../shared/foreground
LEARNED = --photos $(PHOTOS) --photos $(MORE_PHOTOS) --foreground $(FOREGROUND)
DEMO_IMAGE ?= samples/coffee.jpg
DEMO_TEXT ?= "a spoon"
MINUTES ?= 60
QUICK = "not slow and not long and not parity and not browser"

# A .venv of another Python than PYTHON's, or of one that has gone, is made anew; a good one stays where PYTHON is too old.
VERSION = -c 'import sys; sys.version_info < (3, 11) or print("%d.%d" % sys.version_info[:2])' 2>/dev/null
WANTED := $(shell $(PYTHON) $(VERSION))
FOUND := $(shell $(BIN)/python $(VERSION))
ifneq ($(wildcard $(VENV)),)
ifneq ($(FOUND),$(or $(WANTED),$(FOUND),none))
STALE := stale
endif
endif

.PHONY: demo app test test-long coverage fuzz lint bench mini venv clean $(STALE)

demo: $(VENV)/installed  ## segment a sample by text
	$(BIN)/segclip segment $(DEMO_IMAGE) $(DEMO_TEXT)

app: $(VENV)/installed  ## the same by hand, in a browser
	$(BIN)/segclip app

test: lint  ## lint, type-check, run every test
	$(BIN)/python -m pytest -n auto --dist loadscope --durations 40 --durations-min 5

test-long: $(VENV)/dev  ## the tests that take minutes each and repeat what a shorter one tries: every pair of cases
	$(BIN)/python -m pytest -n auto -m long

coverage: $(VENV)/dev  ## lines and branches of segclip that its quick unit tests reach
	$(BIN)/python -m pytest -n auto --dist loadscope -m $(QUICK) --cov --cov-report term tests/unit

fuzz: $(VENV)/dev  ## random inputs of every kind for MINUTES, from SEED on; what failed before comes first
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

bench: $(VENV)/dev  ## each claim of the README against a peer, on this machine
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python -m benchmarks.$$(basename $$script .py); done

mini: $(VENV)/train  ## train the shipped weights again; hours on 2 cores, needs fonts-noto-color-emoji and wordnet-base
	$(BIN)/python -m train.proposer --out weights/mini/proposer $(LEARNED) --minutes 480
	$(BIN)/python -m train.region_crops runs/crops --data $(dir $(PHOTOS))
	$(BIN)/python -m train.text_distill runs/crops --out runs/text --data $(dir $(PHOTOS)) --minutes 60
	$(BIN)/python -m train.region_features runs/crops --out runs/features
	$(BIN)/python -m train.region_text runs/crops runs/features --text runs/text --out runs/mini-clip --minutes 300
	$(BIN)/python -m train.region_head runs/crops runs/features --start runs/mini-clip --out weights/mini/clip
	$(BIN)/python -m train.release.ship --only-stamp
	$(BIN)/python -m train.release.report --calibrate weights/mini/clip --photos $(PHOTOS) --caltech $(CALTECH)
	$(BIN)/python -m train.sam --trunk weights/mini/proposer --out weights/mini/sam $(LEARNED) --minutes 180
	$(BIN)/python -m train.refiner weights/mini/sam $(LEARNED)
	$(BIN)/python -m train.release.ship --only-stamp
	$(BIN)/python -m train.release.places --calibrate weights/mini/clip --photos $(PHOTOS)
	$(BIN)/python -m train.release.ship --photos $(PHOTOS)
	$(BIN)/python -m train.release.calibration $(CALTECH) $(PHOTOS)

venv: $(VENV)/dev  ## only install

clean:
	rm -rf $(VENV) build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache

stale:
	@test -f $(VENV)/pyvenv.cfg || rmdir $(VENV) 2>/dev/null \
	  || { echo "$(VENV) is not empty and no virtual environment; move it away, or name another: make VENV=..."; exit 1; }
	@echo "$(VENV) is of Python $(or $(FOUND),that is gone or too old), not $(WANTED): it is made anew"
	@rm -rf $(VENV)

$(VENV)/bin/python: $(STALE)
	@test -n "$(WANTED)" || { echo "segclip needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/installed: requirements.txt pyproject.toml $(STALE) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@$(BIN)/python -c 'import cv2' 2>/dev/null \
	  || { $(BIN)/python -c 'import cv2'; echo "OpenCV lacks system libraries; on Debian and Ubuntu:" \
	       "apt-get install libxcb1 libgl1 libglib2.0-0"; exit 1; }
	@touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/train: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train]'
	@touch $@
