# make demo: install, then train and report on the embedded model.
# make test: install, lint, test, within minutes.   make audit: what the tests and the checker are worth.
# make test-peers: write and run peers' dictionaries with the peers' own code again, and compare.
# make docs: the site of docs/, in build/site.   make wheels: both wheels and their hashes, in build/wheels.
# make sbom: a bill of materials of what a user installs, in build/sbom.
# make test-real MODEL=FOLDER: xtalk's figures on a real model against plain torch.
# make performance: docs/performance.md, measured on this machine; make bench-peers: what it compares with.

# make page-NAME ARGS=...: what makes a page of docs/ (see studies/); each goes on where it was stopped.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint audit docs wheels sbom bench bench-peers performance test-peers test-real clean

WORKERS ?= 2
FUZZ_SECONDS ?= 60
KILLS ?= 3

demo: $(VENV)/.installed
	$(BIN)/xtalk run --preset quick --out runs/demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations 20

# The same commit gives the same bytes: the wheels' files all have the time of the commit.
wheels: $(VENV)/.installed-dev
	rm -rf build/wheels build/lib packages/xtalk-check/build
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheels packages/xtalk-check .
	@rm -rf build/lib packages/xtalk-check/build
	@sha256sum build/wheels/*.whl

# What a user installs with both wheels and every extra: a bill of materials (CycloneDX), in build/sbom.
SBOM_TOOL := $(VENV)-sbom
sbom: wheels $(SBOM_TOOL)/.installed
	rm -rf build/sbom && mkdir -p build/sbom
	$(PYTHON) -m venv build/sbom/environment
	build/sbom/environment/bin/pip install --quiet --constraint constraints.txt torch
	build/sbom/environment/bin/pip install --quiet --constraint constraints.txt build/wheels/xtalk_check-*.whl \
	  "$$(echo build/wheels/xtalk-*.whl)[all]"
	build/sbom/environment/bin/pip uninstall --quiet --yes pip
	$(SBOM_TOOL)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
	  --output-file build/sbom/xtalk.cdx.json build/sbom/environment/bin/python
	sed -i 's|file://$(CURDIR)/||' build/sbom/xtalk.cdx.json
	rm -rf build/sbom/environment
	@echo build/sbom/xtalk.cdx.json

$(SBOM_TOOL)/.installed:
	$(PYTHON) -m venv $(SBOM_TOOL)
	$(SBOM_TOOL)/bin/pip install --quiet cyclonedx-bom==7.5.0
	@touch $@

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo build/site/index.html

audit: $(VENV)/.installed-dev
	$(BIN)/python -m audit.checker_size --check
	$(BIN)/python -m audit.headlines --check
	$(BIN)/python -m audit.licences --check
	$(BIN)/python -m audit.mutants --workers $(WORKERS)
	$(BIN)/python -m audit.fuzz --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m audit.fuzz_files --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m audit.kills --kills $(KILLS)

# MODEL: a folder of a Llama-like model, as Hugging Face's save_pretrained makes it, such as SmolLM2-135M.
test-real: $(VENV)/.installed-dev
	@test -n "$(MODEL)" || { echo "test-real needs MODEL=FOLDER, a Hugging Face folder of a Llama-like model"; exit 2; }
	OMP_NUM_THREADS=1 XTALK_REAL_MODEL=$(MODEL) $(BIN)/python -m pytest -q tests/real/against_plain.py

# PEER_SOURCES: a folder of checkouts crosscoder_learning, paper and crosslayer, for peers that no index has.
PEERS := $(VENV)-peers
PEER_SOURCES ?=
SCRIPTS := tests/crosscoder/formats/peers
test-peers: $(VENV)/.installed-dev $(PEERS)/.installed
	rm -rf build/peers && mkdir -p build/peers
	for peer in saelens sparsify circuit_tracer dictionary_learning llamascopium; do \
	  $(PEERS)/bin/python $(SCRIPTS)/write_$$peer.py build/peers || exit 1; done
	for peer in $(if $(PEER_SOURCES),crosscoder_learning paper crosslayer); do \
	  PYTHONPATH=$(PEER_SOURCES)/$$peer:$(PEER_SOURCES)/$$peer/model-diffing \
	  $(PEERS)/bin/python $(SCRIPTS)/write_$$peer.py build/peers || exit 1; done
	XTALK_PEER_FILES=build/peers $(BIN)/python -m pytest -q $(SCRIPTS)/../test_peers.py
	$(BIN)/python $(SCRIPTS)/write_converted.py build/peers/converted
	$(PEERS)/bin/python $(SCRIPTS)/read_converted.py build/peers/converted/saelens/*/theirs
	$(PEERS)/bin/python $(SCRIPTS)/read_registered.py build/peers/converted/*/*
	PYTHONPATH=tests $(PEERS)/bin/python tests/models/peers/compare_peft.py build/peers/adapters
	for peer in $(if $(PEER_SOURCES),crosscoder_learning paper); do \
	  PYTHONPATH=$(PEER_SOURCES)/$$peer:$(PEER_SOURCES)/$$peer/model-diffing \
	  $(PEERS)/bin/python $(SCRIPTS)/read_converted.py build/peers/converted/$$peer/*/theirs || exit 1; done

$(PEERS)/.installed: $(SCRIPTS)/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet torch==2.13.0
	$(PEERS)/bin/pip install --quiet --requirement $(SCRIPTS)/requirements.txt
	$(PEERS)/bin/pip install --quiet --no-deps circuit-tracer==0.5.0 dictionary-learning==0.1.0 llamascopium==2.0.0b34
	$(PEERS)/bin/pip install --quiet --no-deps --editable .
	@touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed-dev
	$(BIN)/xtalk bench $(ARGS)

# Other packages, for `xtalk bench step.saelens step.sparsify`.
bench-peers: .venv-bench/.installed

.venv-bench/.installed:
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet torch==2.13.0
	.venv-bench/bin/pip install --quiet sae-lens==6.54.0 eai-sparsify==1.3.3
	@touch $@

performance: $(VENV)/.installed-dev bench-peers
	$(BIN)/python -m benchmarks.page $(ARGS)

# The pages of docs/ that are measured: `make page-results ARGS='--text stories.jsonl ...'`.
STUDY_results := results.results
STUDY_results-variations := results.variations
STUDY_results-frontier := results.frontier
STUDY_results-rivals := results.rivals
STUDY_results-smollm2 := real.smollm2
STUDY_clusters := clusters.clusters
STUDY_validation := validation.validation
PROOFS := sequences attention gross finite charts penalty language speed

page-proofs: $(PROOFS:%=page-proofs-%)

page-proofs-%: $(VENV)/.installed-dev
	$(BIN)/python -m studies.proofs.$* $(ARGS)

page-results page-results-variations page-results-frontier page-results-rivals page-results-smollm2 page-clusters page-validation: page-%: $(VENV)/.installed-dev
	$(BIN)/python -m studies.$(STUDY_$*) $(ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "xtalk needs Python 3.11 or newer; this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: nothing that follows can then choose another build of it.
$(VENV)/.installed: pyproject.toml packages/xtalk-check/pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable packages/xtalk-check
	$(PIP) --editable '.[run]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info
