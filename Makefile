# Every target works with Python, make and git alone: the tools come into .venv by pip.
PYTHON ?= python3
TRACKER ?= mlflow
BRANCH ?= rendered
REPOSITORY ?= .
ROUNDS ?= 15
BIN := .venv/bin
CHECK := build/check
CHECKS := lint test
GENERATOR ?= cookiecutter
# The oldest Python of a project: its default, or this machine's where that is older. Images of
# Python export a variable of this name with another meaning, so only the command line counts.
ifneq ($(origin PYTHON_VERSION),command line)
PYTHON_VERSION = $(shell $(PYTHON) -c 'import sys; print("3.10" if sys.version_info < (3, 11) else "3.11")')
endif
ANSWERS = tracker=$(TRACKER) python_version=$(PYTHON_VERSION)
DEMO := build/demo/$(TRACKER)
PYTEST := $(BIN)/pytest --numprocesses auto

.DEFAULT_GOAL := help
.PHONY: help setup demo check-project test test-all lint questions refresh release rendered docs reference pictures bench-generate clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed ## Make .venv with the template's own tools, pinned

demo: .venv/.installed ## Generate a project into build/demo and run its whole loop (TRACKER=mlflow or wandb)
	@case $(TRACKER) in mlflow|wandb) ;; *) echo "TRACKER=$(TRACKER) is refused: it has to be mlflow or wandb, for example TRACKER=wandb"; exit 2;; esac
	rm -rf $(DEMO)
	$(BIN)/cookiecutter . --no-input --default-config --output-dir $(DEMO) $(ANSWERS)
	$(MAKE) -C $(DEMO)/purchase-prediction demo

check-project: .venv/.installed ## Generate one project and run its checks (GENERATOR=copier TRACKER=wandb PYTHON_VERSION=3.12)
	rm -rf $(CHECK)
	@case $(GENERATOR) in \
		cookiecutter) $(BIN)/cookiecutter . --no-input --default-config --output-dir $(CHECK) $(ANSWERS);; \
		copier) $(BIN)/copier copy --quiet --defaults --vcs-ref HEAD $(ANSWERS:%=--data=%) . $(CHECK)/purchase-prediction;; \
		*) echo "GENERATOR=$(GENERATOR) is refused: cookiecutter or copier"; exit 2;; esac
	$(MAKE) -C $(CHECK)/purchase-prediction $(CHECKS)

test: lint ## Check the template's own code, both generators and the rendered projects' own tests
	$(PYTEST)

test-all: lint ## The same with the long tests: every option, every supported Python
	$(PYTEST) -m ''

lint: .venv/.installed ## Check style, types and the template's marks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/lint_template.py

questions: .venv/.installed ## Write copier.yml from cookiecutter.json and the rules in hooks/
	$(BIN)/python scripts/copier_questions.py

refresh: .venv/.installed ## Take the newest versions into both constraints.txt, tell what changed, and test
	$(BIN)/python scripts/refresh_constraints.py --upgrade
	$(BIN)/python scripts/copier_questions.py
	@$(MAKE) test || { echo "The tests fail with the new versions. Nothing was taken back: git diff shows what changed; bound what breaks in a pyproject.toml and run make refresh again"; exit 1; }

rendered: .venv/.installed ## Commit the default project onto the branch that forks pull (BRANCH=rendered REPOSITORY=.)
	@$(BIN)/python scripts/publish_rendered.py --branch "$(BRANCH)" --repository "$(REPOSITORY)"

release: .venv/.installed ## Tag and list VERSION=1.2.0; TESTED=COMMIT where `make test` has passed on it
	$(BIN)/python scripts/release.py "$(VERSION)" $(if $(TESTED),--tested "$(TESTED)")

docs: .venv/.installed ## Build the pages of docs/ into build/docs, warnings are errors
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

reference: .venv/.installed ## Write docs/reference/ from the code of the project that make demo made
	@$(BIN)/python scripts/reference.py build/demo/mlflow/purchase-prediction

pictures: .venv/.installed ## Make docs/pictures/ from a run of the demo that make demo made (needs chromium)
	@$(BIN)/python scripts/pictures.py build/demo/mlflow/purchase-prediction

bench-generate: .venv/.installed ## Time a generation with each tool beside the bare tool (ROUNDS=15)
	@$(BIN)/python benchmarks/generate.py --rounds "$(ROUNDS)"

clean: ## Remove the environment, generated projects and caches
	rm -rf .venv build .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed, $$($(PYTHON) --version) was found: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { echo "Python's module venv does not work: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev
	@touch $@
