# `make demo` shows what ponder does; `make test` runs the checks. Both set up what they need in .venv.
.PHONY: help demo test test-slow up down clean

BIN = .venv/bin
# Threads that spin while they wait cost milliseconds an operation where others share the cores.
export OMP_WAIT_POLICY = PASSIVE

help: ## Say what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: ## A real batch through a real queue, engine, search and database, and its bill; about four minutes.
	@./scripts/install.sh demo
	@$(BIN)/ponder demo

test: ## Linters, types, import rules and all tests but the slow ones; about a quarter of an hour on two cores.
	@./scripts/install.sh test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry platform gpu_worker kernels migrations
	$(BIN)/pytest

test-slow: ## What takes too long for every change: installs from the package index, the wheel, sixty injected faults.
	@./scripts/install.sh test
	$(BIN)/pytest -m slow

up: ## Start everything on this machine, in the background.
	@./scripts/install.sh demo
	@$(BIN)/ponder up

down: ## Stop it.
	@$(BIN)/ponder down

clean: ## Remove .venv and what the tools left here; data under PONDER_HOME stay.
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
