# The two commands of a newcomer: make demo, make test; make alone lists all. They set up .venv and .venv-deploy themselves.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
DEPLOY := .venv-deploy
PEERS := .venv-peers
INTEROP := .venv-interop
INSTALL = -m pip install --disable-pip-version-check -q $(PIP_ARGS)
OUTPUT ?= output/demo
DEVICE ?= auto
AFFINE ?= affine

HOST ?=
# of the tests: two processes with a thread each are quicker than one with two
WORKERS ?= -n 2 --dist loadfile
PYTEST := -m pytest
# folders of tests: those that have environments of their own, and those that test leaves to test-zoo
APART := deploy_app pacs map interop report/browser
ZOO := zoo docs recipes
SOURCE ?=
TABLE ?=
ARCHIVE ?=

.PHONY: help demo test coverage coverage-clean viewer test-report test-zoo test-peers test-interop test-pacs test-map models map release lint benchmark gpu clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

define python_is_ready
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed (PYTHON=python3.x make …)"; exit 1; }
@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: Python's venv module is missing: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
endef

# the bundle's environment, rebuilt when what it is made of changes
$(VENV)/.installed: pyproject.toml constraints.txt
	$(python_is_ready)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python $(INSTALL) -c constraints.txt -e ".[test]"
	@touch $@

$(VENV)/.consumers: $(VENV)/.tested
	$(BIN)/python $(INSTALL) -c constraints.txt -e ".[test,zoo]"
	@touch $@

$(VENV)/.browser: $(VENV)/.tested
	$(BIN)/python $(INSTALL) -c constraints.txt -e ".[test,browser]"
	@touch $@

$(PEERS)/.installed: pyproject.toml constraints.txt
	$(python_is_ready)
	$(PYTHON) -m venv $(PEERS)
	grep -vE '^(numpy|scipy)' constraints.txt > $(PEERS)/constraints.txt  # antspyx asks for older ones
	$(PEERS)/bin/python $(INSTALL) -c $(PEERS)/constraints.txt -e ".[peers]" pytest
	@touch $@

$(INTEROP)/.installed: pyproject.toml constraints.txt
	$(python_is_ready)
	@command -v cc >/dev/null || { echo "error: surfa is compiled: install a C compiler (Debian and Ubuntu: apt install build-essential)"; exit 1; }
	$(PYTHON) -m venv $(INTEROP)
	grep -vE '^(numpy|scipy)' constraints.txt > $(INTEROP)/constraints.txt  # antspyx and surfa ask for older ones
	$(INTEROP)/bin/python $(INSTALL) -c $(INTEROP)/constraints.txt -e ".[interop]" pytest
	@touch $@

# the DICOM application's environment; its first line is what the container holds too
$(DEPLOY)/.installed: deploy_app/requirements.txt
	$(python_is_ready)
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python $(INSTALL) -r deploy_app/requirements.txt
	@touch $@

$(DEPLOY)/.tested: $(DEPLOY)/.installed tests/deploy_app/requirements.txt
	$(DEPLOY)/bin/python $(INSTALL) -r deploy_app/requirements.txt -r tests/deploy_app/requirements.txt
	$(DEPLOY)/bin/python -m pip uninstall -q -y rfc3987-syntax  # comes with cyclonedx-bom; every start of MONAI would import it, for seconds
	@touch $@

# Debian packages that a recipe needs: those missing are installed, which takes root
debian = @test "$$(dpkg-query -W -f='$${db:Status-Status}\n' $(1) 2>/dev/null | grep -cx installed)" = $(words $(1)) || { \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "error: Debian packages are missing; as root: apt-get install $(1)"; exit 1; }; \
	echo "installing the Debian packages that are missing of: $(1)"; apt-get -qq update && \
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $(1) >/dev/null; }
PACS_PACKAGES := orthanc orthanc-dicomweb dcmtk dicom3tools plastimatch dcm2niix
INTEROP_PACKAGES := connectome-workbench plastimatch
REPORT_PACKAGES := chromium chromium-driver
MAP_PACKAGES := buildah mmdebstrap crun

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.+)$$/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.installed  ## register two synthetic heads, or MOVING=m.nii.gz FIXED=f.nii.gz
ifdef MOVING
	@$(BIN)/python -W ignore -m bundle register --moving "$(MOVING)" --fixed "$(FIXED)" --output_dir "$(OUTPUT)" --affine $(AFFINE) --device $(DEVICE)
else
	@$(BIN)/python -W ignore -m bundle demo --output_dir "$(OUTPUT)" --device $(DEVICE)
endif

test: $(VENV)/.tested $(DEPLOY)/.tested models  ## the tests of the bundle and of the DICOM application, but for what takes long (test-…)
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -q $(WORKERS) -m "not slow" $(addprefix --ignore=tests/,$(APART) $(ZOO))
	OMP_NUM_THREADS=1 $(DEPLOY)/bin/python $(PYTEST) -q $(WORKERS) -m "not debian and not slow" tests/deploy_app tests/map
	@echo "left out: what takes five seconds or more, the release, who uses it, the paper's data sets (make test-zoo), other methods and tools (make test-peers, test-interop), the report in a browser (make test-report), what needs Debian packages (make test-pacs), the container (make test-map)"

# the same tests under branch coverage, with the processes that they start; fails below the floor in pyproject.toml
coverage: PYTEST := -m coverage run -m pytest
coverage: coverage-clean test  ## the same tests, and how much of the code they reach
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

coverage-clean:
	@rm -rf build/coverage

# the release and the tools that take it as it is (the Model Zoo's checks, export, federation, tracking), the notebook, the
# paper's data sets; of the other tests, those that take five seconds or more
test-zoo: $(VENV)/.consumers $(DEPLOY)/.tested  ## the release, the tools that take it, the notebook, the paper's data sets; the long tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(WORKERS) $(addprefix tests/,$(ZOO))
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(WORKERS) -m slow $(addprefix --ignore=tests/,$(APART) $(ZOO))
	OMP_NUM_THREADS=1 $(DEPLOY)/bin/python -m pytest -q $(WORKERS) -m slow tests/deploy_app

# what report.html views images with: bundle/report/assets/viewer.js, of NiiVue by its package-lock.json
viewer:  ## build the viewer of report.html anew (needs npm)
	@command -v npm >/dev/null || { echo "error: npm is missing: install Node.js (Debian and Ubuntu: apt install npm)"; exit 1; }
	cd viewer && npm ci --no-audit --no-fund && npm run build

# the methods of other packages that the benchmark runs, in an environment of their own: itk-elastix brings parts of ITK along
test-peers: $(PEERS)/.installed  ## the methods of other packages that the benchmark runs
	OMP_NUM_THREADS=2 $(PEERS)/bin/python -m pytest -q tests/benchmark/test_methods.py -k "syn or elastix or greedy or convexadam"

# our transforms in other tools, and theirs here; TABLE=--table writes what was found into docs/transforms.md
test-interop: $(INTEROP)/.installed  ## our transforms in other tools, and theirs here
	$(call debian,$(INTEROP_PACKAGES))
	OMP_NUM_THREADS=1 $(INTEROP)/bin/python -m pytest -q $(TABLE) tests/interop

# report.html in Chromium: each control against what ITK makes of the same pair
test-report: $(VENV)/.browser  ## report.html in Chromium
	$(call debian,$(REPORT_PACKAGES))
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/report/browser

# what needs DICOM validators and other programs, and the circle through a picture archive
test-pacs: $(DEPLOY)/.tested models  ## DICOM validators and a picture archive
	$(call debian,$(PACS_PACKAGES))
	$(DEPLOY)/bin/python -m pytest -q -m debian tests/deploy_app tests/pacs

test-map: map  ## the container
	$(DEPLOY)/bin/python -m pytest -q -m debian tests/map

models: $(DEPLOY)/.installed  ## the model folder of the DICOM application, in build/map/models
	@$(DEPLOY)/bin/python -m container.staging

map: $(DEPLOY)/.tested  ## the container image of the DICOM application (docs/deploy.md)
	$(call debian,$(MAP_PACKAGES))
	$(DEPLOY)/bin/python -m container.image --source "$(SOURCE)" $(if $(ARCHIVE),--archive "$(ARCHIVE)")

# what is published, in build/release; then the zip by its own README. HOST=https://… is where the weights will lie
release: $(VENV)/.tested  ## what is published, in build/release; HOST=https://… is where the weights will lie
	$(BIN)/python release.py $(if $(HOST),--host "$(HOST)")

lint: $(VENV)/.tested  ## ruff, mypy and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd deploy_app && ../$(BIN)/mypy --config-file ../pyproject.toml .
	$(BIN)/lint-imports
	cd deploy_app && ../$(BIN)/lint-imports --config ../importlinter_application.toml

benchmark: $(VENV)/.installed  ## seconds and memory of the network, a training step and the whole command
	$(BIN)/python -W ignore -m bundle benchmark speed

# what there is to ask of a GPU, in one call; PYTHON needs torch alone. tests/benchmark/test_gpu.py runs it on the CPU
GPU_DEVICE := $(if $(filter auto,$(DEVICE)),cuda,$(DEVICE))
gpu:  ## what there is to ask of a GPU, in one call
	$(PYTHON) -W ignore -m bundle.benchmark.gpu --device $(GPU_DEVICE) $(if $(SIZES),--sizes "$(SIZES)")

# environments and what the recipes build; data/ and output/ hold what users prepared and trained
clean:  ## take away environments and what the recipes built, not data/ and output/
	rm -rf $(VENV) $(DEPLOY) $(PEERS) $(INTEROP) build
