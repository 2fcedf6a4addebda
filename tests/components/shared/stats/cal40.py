"""Forty labelled scores with reference values computed by the libraries named beside each test."""

import numpy as np

from components.shared.stats.metrics import sigmoid

_I = np.arange(40)
MARGIN = np.round(4 * np.sin(1.7 * _I + 0.3) + 1.2 * np.cos(0.6 * _I), 3)
TRUTH = np.round(1.1 * np.sin(1.7 * _I + 0.3) + 0.9 * np.sin(2.9 * _I + 1), 3) > 0
PROBABILITY = sigmoid(MARGIN)
DECISION = PROBABILITY > 0.5
