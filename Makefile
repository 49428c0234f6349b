# Two commands matter: `make run` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
PYTHON_CODE := schemas adapters daemon tests specs
UV ?= uv
# Some machines ask Python not to keep what it has compiled: then each of a thousand processes that
# the tests start compiles all that it imports, which takes longer than what it is started for.
unexport PYTHONDONTWRITEBYTECODE
# Most tests wait for real servers, so more processes than cores are of use. A file stays in one
# process, and the files begin in their own order: by number of tests, the longest few come last.
TEST_PROCESSES ?= 4
DISTRIBUTE := --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: install ## serve the quickstart: trains a model, answers on 127.0.0.1:8701
	@exec $(BIN)/windlass up specs/quickstart

.PHONY: install
install: ## make .venv from the hashed lock, as `make run` does
	@requirements/install run

.PHONY: test
test: install-dev ## install what the tests need and run everything, lint beside the tests
	@$(MAKE) lint >.venv/lint.log 2>&1 & lint=$$!; \
	$(BIN)/pytest -n $(TEST_PROCESSES) $(DISTRIBUTE) || { \
		echo "Once more, alone: what failed while $(TEST_PROCESSES) processes shared the machine"; \
		$(BIN)/pytest --last-failed --last-failed-no-failures none; }; \
	tests=$$?; wait $$lint; lint=$$?; cat .venv/lint.log; exit $$((tests | lint))

.PHONY: test-kit
test-kit: install-dev ## what proves on each commit that it converges, alone, and how much that was
	@$(BIN)/pytest -m "kit and not long" -n 2 $(DISTRIBUTE) --durations 12 \
		$$(grep -rl --include='test_*.py' 'pytest.mark.kit' tests | sort)

.PHONY: test-long
test-long: install-dev ## every pair of kills, 200 kills of the daemon, long property tests
	@$(BIN)/pytest -m long -s
	@WINDLASS_TEST_DEPTH=long $(BIN)/pytest --timeout 14400 tests/contract/test_adapters.py \
		tests/contract/test_slurm_schedules.py \
		tests/contract/test_sagemaker_contract.py \
		tests/integration/test_two_owners.py tests/integration/test_unobserved.py tests/property

.PHONY: fuzz
fuzz: install-dev ## feed thousands of mutated inputs to everything that reads texts from outside
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(BIN)/pytest tests/fuzz --timeout 3600

.PHONY: install-dev
install-dev:
	@tests/rig/system-packages
	@requirements/install dev

.PHONY: lint
lint: install-dev ## ruff, mypy and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(PYTHON_CODE)
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: install-dev ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: install-dev ## measure: the story in seconds, memory, requests a second
	@for bench in tests/bench/bench_*.py; do PYTHONPATH=tests $(BIN)/python $$bench || exit 1; done

.PHONY: bench-serving
bench-serving: install-dev ## measure serving beside other model servers; writes the table and the plot
	@PYTHONPATH=tests $(BIN)/python -m bench.serving.bench_serving --write

.PHONY: soak-serving
soak-serving: install-dev ## load with swaps for MINUTES (1440): no failed request, no growing memory
	@PYTHONPATH=tests $(BIN)/python -m bench.serving.soak --minutes $${MINUTES:-1440}

.PHONY: kills-serving
kills-serving: install-dev ## kill -9 of serving processes under load: counts the requests that are lost
	@PYTHONPATH=tests $(BIN)/python -m bench.serving.kills

.PHONY: test-fresh
test-fresh: ## the README in a bare Debian root (needs root and debootstrap; takes minutes)
	@python3 tests/rig/fresh_debian.py

# --universal: one lock for Python 3.11 to 3.13. No header and no index addresses, so that the
# lock says nothing of the machine that made it. uv keeps the versions that it finds in its output
# file, so run starts as a copy of dev and ends with the same versions.
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-config pyproject.toml
.PHONY: lock
lock: ## resolve pyproject.toml into requirements/*.txt (needs uv; UPGRADE=--upgrade for newer)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pipx install uv"; exit 1; }
	@$(UV) $(COMPILE) $(UPGRADE) --extra build --extra quickstart --extra dev -o requirements/dev.txt
	@cp requirements/dev.txt requirements/peers.txt
	@$(UV) $(COMPILE) --extra build --extra quickstart --extra dev --extra peers -o requirements/peers.txt
	@cp requirements/dev.txt requirements/run.txt
	@$(UV) $(COMPILE) --extra build --extra quickstart -o requirements/run.txt

.PHONY: proto
proto: install-dev ## generate the gRPC messages from their .proto file
	@cd daemon && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
		windlass/serving/grpc_v2/inference.proto

.PHONY: clean
clean: ## remove .venv and caches; .windlass, the state, stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
