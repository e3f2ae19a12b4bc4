# Two commands are all there is to know: `make run` and `make test`. ARGS="…" passes options on.
VENV := .venv
PYTHON := $(VENV)/bin/python
BASE_PYTHON ?= python3
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
UV := $(VENV)/bin/uv --quiet

# uv takes a third of pip's time, but knows nothing of pip's configuration: pip does it where it has
# an index or a proxy of its own, and where there is no uv for this machine or it does not succeed.
# Compiled at once, rather than by each of the processes that start together.
INSTALL = install() { ! $(PIP) config list | grep -qE '\.(index-url|no-index|proxy)=' && \
	$(UV) pip install --compile-bytecode --python $(PYTHON) "$$@" || $(PIP) install "$$@"; }; install

LOCK = $(UV) pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	--no-strip-extras --no-header --no-emit-index-url

.PHONY: run test lint pytest faults soak install install-test install-kerberos lock audit docs clean

run: install
	@exec $(PYTHON) -m metrics_pipeline run $(ARGS)

install: $(VENV)/installed

test: lint pytest

pytest: install-test
	$(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Breaks each part while it works, and accounts for every point: 20 minutes. docs/faults.md
faults: install-test
	@$(PYTHON) -m metrics_pipeline_tests.faults $(ARGS)

# Runs for hours, and says what was missed and what grows; ARGS="--hours 8". docs/faults.md
soak: install-test
	@$(PYTHON) -m metrics_pipeline_tests.soak $(ARGS)

install-test: $(VENV)/installed-test

# The extra `kerberos` for Windows hosts. It is built here, about a minute: on Debian,
# apt-get install gcc libc6-dev libkrb5-dev python3-dev. What is built only hands calls on to
# libkrb5: the compiler's optimisation would take three times as long and gain nothing.
install-kerberos: $(VENV)/installed-kerberos

# Known holes in what we depend on; needs a network that reaches the advisory database.
audit: install-test
	$(PYTHON) -m metrics_pipeline_tests.dependency_audit

# Exact versions with hashes, for every platform, from the ranges in pyproject.toml.
lock: install-test
	$(LOCK) pyproject.toml --extra build --output-file constraints.txt
	$(LOCK) pyproject.toml --extra build --extra blob --extra celery --extra kubernetes \
		--constraint constraints.txt --output-file constraints-image.txt
	$(LOCK) pyproject.toml --extra build --extra blob --extra celery --extra kubernetes --extra test \
		--constraint constraints-image.txt --output-file constraints-test.txt
	echo 'pypsrp[kerberos]' | $(LOCK) - --constraint constraints.txt \
		--output-file constraints-kerberos.txt
	$(LOCK) --group kerberos-build --output-file constraints-kerberos-build.txt
	$(LOCK) --group installer --output-file constraints-installer.txt

docs: install
	$(PYTHON) -m metrics_pipeline.reference docs
	$(PYTHON) -m metrics_pipeline dashboards export docker/grafana/dashboards
	$(PYTHON) -m metrics_pipeline_tests.docker.prometheus_rule \
		> docker/kubernetes/monitoring/alert-rules.yaml

clean:
	rm -rf $(VENV) .state .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with BASE_PYTHON=python3.12"; exit 1; }
	@echo "Making $(VENV)"
	@rm -rf $(VENV)
	@$(BASE_PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "python3 -m venv does not work here: on Debian, apt-get install python3-venv"; exit 1; }

$(VENV)/installed: constraints-installer.txt constraints.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing (half a minute the first time)"
	@$(PIP) install --require-hashes --only-binary :all: --requirement constraints-installer.txt || true
	@$(INSTALL) --require-hashes --requirement constraints.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-test: constraints-test.txt $(VENV)/installed
	@echo "Installing what the tests need"
	@$(INSTALL) --require-hashes --requirement constraints-test.txt
	@touch $@

$(VENV)/installed-kerberos: constraints-kerberos.txt constraints-kerberos-build.txt $(VENV)/installed
	@echo "Installing Kerberos"
	@$(INSTALL) --require-hashes --requirement constraints-kerberos-build.txt
	@export CFLAGS="$(CFLAGS) -O0 -g0"; $(INSTALL) --require-hashes --no-build-isolation \
		--requirement constraints-kerberos.txt || \
		{ echo "Kerberos cannot be built here: on Debian," \
		"apt-get install gcc libc6-dev libkrb5-dev python3-dev"; exit 1; }
	@touch $@
