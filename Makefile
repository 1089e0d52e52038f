# What is checked of every change. The tools come with: pip install -e ".[test]"
.PHONY: check test docs

check:
	ruff check .
	ruff format --check .
	lint-imports --no-logo
	mypy

test:
	pytest -q -n 2

# The pages of the datasets, from their builders.
docs:
	python scripts/make_docs.py
