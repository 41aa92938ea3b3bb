# `make demo` shows what ponder does; `make test` runs the checks. Both set up what they need in .venv.
.PHONY: help demo test test-slow test-vllm up down clean

BIN = .venv/bin
# Threads that spin while they wait cost milliseconds an operation where others share the cores. Workers set it themselves.
test test-slow: export OMP_WAIT_POLICY = PASSIVE

# More than there are cores on a small machine, because many tests wait for processes and databases.
TESTS_AT_A_TIME = 3

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: ## Run a real batch through a real queue, engine, search and database, and its bill; about four minutes.
	@./scripts/install.sh demo
	@$(BIN)/ponder demo

test: ## Run linters, types, import rules, shape and all tests but the slow ones; twenty-five minutes on two cores.
	@./scripts/install.sh test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry platform gpu_worker kernels migrations
	$(BIN)/python scripts/shape.py
	$(BIN)/pytest -n $(TESTS_AT_A_TIME) --dist loadfile

test-slow: ## Run what takes too long for every change: installs from the package index, vLLM, sixty injected faults.
	@./scripts/install.sh test
	$(BIN)/pytest -m slow -n 2 --dist loadfile

# vLLM loads no mixture of experts in a process whose first model was dense, so checkpoints have a process of their own.
test-vllm: ## Run the tests of --engine vllm in an environment of its own; test-slow runs them too.
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then ./scripts/install.sh vllm && \
		.venv-vllm/bin/pytest -m vllm tests/gpu_worker/vllm_engine && \
		.venv-vllm/bin/pytest -m vllm tests/gpu_worker tests/system --ignore tests/gpu_worker/vllm_engine; \
		else echo "tests of --engine vllm: skipped: they need Linux on x86-64"; fi

up: ## Start everything on this machine, in the background.
	@./scripts/install.sh demo
	@$(BIN)/ponder up

down: ## Stop it.
	@$(BIN)/ponder down

clean: ## Remove .venv and what the tools left here; data under PONDER_HOME stay.
	rm -rf .venv .venv-vllm .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
