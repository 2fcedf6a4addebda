"""Backbones and classifiers. transformers' own progress bars are off: they show reads and writes of
a second.
"""

from transformers.utils import logging

logging.disable_progress_bar()
