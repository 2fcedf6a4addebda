"""Backbones, adapters, classifiers and gates.

Importing this package turns off transformers' own progress bars, which report reads and writes of
about a second and would interleave with those of the training loop.
"""

from transformers.utils import logging

logging.disable_progress_bar()
