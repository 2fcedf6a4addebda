"""Chaos on local runs: `python -m tests.chaos` (make test-chaos)."""
