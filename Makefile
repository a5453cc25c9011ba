# Needs make and Python 3.11 or newer; every target sets up the rest on first use.

SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup packages demo serve test check soak bench format requirements clean

orrery = backend/.venv/bin/orrery
in_backend = cd backend && .venv/bin/python
# Without compiled modules every process would compile the project anew, which takes longer than its start.
unexport PYTHONDONTWRITEBYTECODE
# One more test process than cores, because many tests wait for something; eight at most.
processes = $$(n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -lt 7 ] && echo $$((n + 1)) || echo 8)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## Install everything of the project into backend/.venv
	@sh backend/scripts/bootstrap.sh

packages: # Programs that some tests need; without them they are skipped
	@sh backend/scripts/install_test_packages.sh

demo: setup ## Ingest sample documents, ask an agent, show the answer; can be repeated
	@$(orrery) demo $(ARGS)

serve: setup ## Run the whole platform on this machine (ARGS="--port 9000")
	@$(orrery) serve $(ARGS)

test: setup packages ## Run the tests (TESTS=tests/house, ARGS="-k name"; PYTEST_WORKERS=1 sets the processes)
	@$(in_backend) -m pytest -n $${PYTEST_WORKERS:-$(processes)} $(TESTS) $(ARGS)

check: setup ## What CI runs: format, lint, types, import contracts, house rules, licences, then the tests
	@$(in_backend) scripts/check.py
	@$(MAKE) --no-print-directory test

soak: setup packages ## Run the guarantees at full size (ORRERY_SEED=n repeats a run)
	@ORRERY_SEED="$${ORRERY_SEED:-$$(date +%s)}"; export ORRERY_SEED; \
	echo "soak: repeat with ORRERY_SEED=$$ORRERY_SEED make soak"; \
	$(in_backend) -m pytest -m soak --timeout 3600 $(TESTS) $(ARGS)

bench: setup ## Print our cost as a ratio to the bare parts (ARGS="run search --full")
	@$(in_backend) -m benchmarks $(ARGS)

format: setup ## Format the code and apply the safe fixes
	@$(in_backend) -m ruff format . && .venv/bin/python -m ruff check --fix .

requirements: setup ## Write backend/requirements.txt from backend/uv.lock
	@sh backend/scripts/export_requirements.sh

clean: ## Remove what setup and the tools made; your data in .orrery stays
	@rm -rf .tools backend/.venv backend/.pytest_cache backend/.mypy_cache backend/.ruff_cache
	@rm -rf backend/.import_linter_cache backend/.hypothesis
	@find backend -type d -name __pycache__ -prune -exec rm -rf {} +
