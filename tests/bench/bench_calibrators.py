"""Time to fit calibrators to 100,000 samples against the libraries that have them.

Peers stop at their own tolerance; ours must reach at least their likelihood.
"""

import numpy as np
from betacal import BetaCalibration
from sklearn.linear_model import LogisticRegression

from components.shared.calibration.dirichlet import Beta
from components.shared.calibration.linear import Platt
from components.shared.stats.metrics import nll, sigmoid
from tests.bench.measure import Result, interleaved

_N_SAMPLES = 100_000


def run() -> list[Result]:
    """Platt against scikit-learn's unregularised logistic regression, beta against betacal."""
    rng = np.random.default_rng(0)
    margin = rng.normal(size=_N_SAMPLES) * 3
    truth = rng.random(_N_SAMPLES) < sigmoid(margin / 2 + 0.5)
    logits, labels = np.column_stack([np.zeros(_N_SAMPLES), margin]), truth.astype(np.int64)

    def platt() -> LogisticRegression:
        return LogisticRegression(C=np.inf, tol=1e-8).fit(margin[:, None], truth)

    def beta() -> BetaCalibration:
        return BetaCalibration("abm").fit(sigmoid(margin)[:, None], truth)

    ours = Beta.fit(logits, labels).log_probabilities(logits)
    theirs = beta().predict(sigmoid(margin)[:, None])
    assert nll(truth, ours[:, 1] - ours[:, 0]) <= nll(truth, np.log(theirs / (1 - theirs))) + 1e-6
    fitted, peer = Platt.fit(logits, labels), platt()
    np.testing.assert_allclose(
        [fitted.slope[0], fitted.intercept[0]], [peer.coef_[0, 0], peer.intercept_[0]], rtol=1e-3
    )
    return [
        Result(
            "Platt scaling, 100k samples",
            "sklearn.linear_model.LogisticRegression without penalty",
            *interleaved(lambda: Platt.fit(logits, labels), platt, rounds=3),
            goal=1,
        ),
        Result(
            "beta calibration, 100k samples",
            "betacal.BetaCalibration('abm')",
            *interleaved(lambda: Beta.fit(logits, labels), beta, rounds=3),
            goal=1,
        ),
    ]
