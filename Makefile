# `make demo` shows what ponder does; `make test` runs every check. Both set up what they need in .venv.
.PHONY: help demo test up down clean

BIN = .venv/bin
# Threads that spin while they wait cost milliseconds an operation where others share the cores.
export OMP_WAIT_POLICY = PASSIVE

help: ## Say what can be made.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: ## A real batch through a real queue, engine, search and database, and its bill; about four minutes.
	@./scripts/install.sh demo
	@$(BIN)/ponder demo

test: ## Linters, types, import rules and all tests.
	@./scripts/install.sh test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

up: ## Start everything on this machine, in the background.
	@./scripts/install.sh demo
	@$(BIN)/ponder up

down: ## Stop it.
	@$(BIN)/ponder down

clean: ## Remove .venv and what the tools left here; data under PONDER_HOME stay.
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
