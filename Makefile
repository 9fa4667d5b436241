# Two commands do it all on a fresh Debian 12 machine, as root: `make demo` and `make test`.

.PHONY: help demo demo-publish test lint unit pool bench fuzz docs clean

help:
	@echo "make demo   real jobs on a real HTCondor, and a table of what became of them"
	@echo "make demo-publish   images from a registry, published in both forms, and jobs that run from each"
	@echo "make test   installs what the tests need, and runs them all"
	@echo "make bench  how fast: the hook, the manager; what a thousand kills and half an hour of fuzzing find"
	@echo "make lint | unit | pool   parts of make test"
	@echo "make fuzz   the last part of make bench; IMAGE_CACHE_FUZZ_SECONDS says how long"
	@echo "make docs   writes the generated parts of README.md and condor_config.d"

demo:
	@tests/run demo

demo-publish:
	@tests/run demo-publish

test:
	@tests/run test

lint unit pool bench fuzz docs:
	@tests/run $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
