"""Checks and timings of the GPU path: `make test-gpu`, and `test_gpu.py` for pytest."""
