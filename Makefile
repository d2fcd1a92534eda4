# make demo: everything the suite does, on built-in data.   make check, make test: what CI does.   All set themselves up.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo check test docs coverage test-slow test-hardening test-slurm test-jobs clean

demo: .venv/ready
	bash jobs/demo.sh

# style and types; the versions of both tools are pinned
check: .venv/ready
	ruff check .
	ruff format --check .
	ty check

test: .venv/ready
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile

# site/index.html from docs/; a broken link is an error
docs: .venv/docs-ready
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict

# the share of the lines of lib/ that the tests run
coverage: .venv/ready
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --cov --cov-report=term

test-slow: .venv/ready
	python -m pytest -m slow

# kills, random command lines, broken files, clean installations; half an hour
test-hardening: .venv/ready
	OMP_NUM_THREADS=1 python -m pytest -m hardening

# as root, with Debian's slurm-wlm and munge
test-slurm: .venv/ready
	python -m pytest -m slurm tests/slurm

# every command of the README and of jobs/, on built-in data; an hour
test-jobs: .venv/ready
	OMP_NUM_THREADS=1 python -m pytest -m jobs

.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch .venv/ready

.venv/docs-ready: .venv/ready docs/requirements.txt
	.venv/bin/python -m pip install --quiet --requirement docs/requirements.txt
	touch .venv/docs-ready

clean:
	rm -rf site .venv .cache .pytest_cache .ruff_cache build
