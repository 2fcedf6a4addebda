"""Time of an answer to one image."""

import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from components.shared.serving.forms import FormPredictor

N_TIMED = 16  # images, after one that is not timed


def median_latency_ms(predictor: FormPredictor, images: Iterable[npt.NDArray[np.uint8]]) -> float:
    """Return the median time of an answer to one image, in milliseconds, from its pixels on.

    Args:
        predictor: What answers.
        images: One or more of (1, S, S, 3), of which the first is answered twice: without that
            the first answer would also pay for what is made once. At most `N_TIMED` are timed.
    """
    seconds: list[float] = []
    for pixels in images:
        if not seconds:
            predictor.answers(pixels)
        start = time.perf_counter()
        predictor.answers(pixels)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == N_TIMED:
            break
    return float(1000 * np.median(seconds))
