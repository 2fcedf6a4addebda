"""Admission: bounds on what is accepted, and the time after which to try again."""

import pytest

from components.shared.serving.server.admission import Admission
from components.shared.serving.server.limits import Limits
from components.shared.serving.server.refusals import Reason, RefusedError


def test_images_are_accepted_up_to_the_bound_and_again_after_an_answer() -> None:
    admission = Admission(Limits(queued_images=3))
    admission.accept(2)
    with pytest.raises(RefusedError, match="2 images are waiting, at most 3") as refused:
        admission.accept(2)
    assert refused.value.reason is Reason.BUSY
    assert refused.value.retry_after == 1

    admission.accept(1)
    admission.answered(2)
    admission.accept(2)
    assert admission.n_images == 3


def test_a_request_that_never_fits_is_the_clients_fault() -> None:
    with pytest.raises(RefusedError, match="4 images, at most 3 in one request") as refused:
        Admission(Limits(queued_images=3)).accept(4)
    assert refused.value.reason.status == 413
    assert refused.value.retry_after is None


def test_the_time_to_try_again_is_that_of_what_waits() -> None:
    admission = Admission(Limits(queued_images=10))
    for _ in range(100):
        admission.computed(2, 4.0)  # two seconds per image
    admission.accept(10)
    with pytest.raises(RefusedError) as refused:
        admission.accept(1)
    assert refused.value.retry_after == 20


def test_bytes_are_held_up_to_sixteen_bodies() -> None:
    admission = Admission(Limits(body_bytes=10))
    admission.hold(160)
    with pytest.raises(RefusedError, match="160 bytes of requests are held") as refused:
        admission.hold(1)
    assert refused.value.reason.status == 503
    admission.let_go(1)
    admission.hold(1)
