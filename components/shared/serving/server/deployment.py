"""Deployment: the bundle that answers, and its exchange for another without a dropped request."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import one_line
from components.shared.contracts.outcomes import DEFER
from components.shared.data.decode import ImageRejectedError, decode, resize
from components.shared.serving.answer import Answer, answer_document
from components.shared.serving.server import metrics
from components.shared.serving.server.admission import Admission
from components.shared.serving.server.batching import Batcher, Pixels
from components.shared.serving.server.limits import N_DECODERS, Limits
from components.shared.serving.server.refusals import Reason, RefusedError
from components.shared.serving.stage2 import Stage2, Stage2Answer

SEVERAL = "several"  # the label of an answer that names more than one outcome
_ANSWER_SECONDS = 0.2  # of a request's time, kept to send the answer of stage 1


class Engine(Protocol):
    """What computes: a format of a bundle, such as `OnnxPredictor`."""

    def answers(self, pixels: Pixels) -> list[Answer]:
        """Return one answer per image of (B, S, S, 3) uint8."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A verified bundle that can answer.

    Attributes:
        engine: computes.
        outcomes: names of the outcomes, in the order of their codes.
        image_size: S, side of the engine's pixels.
        digest: content digest of the bundle.
        form: the format, such as "onnx".
        folder: where it was downloaded, removed after its last answer; None where it stays.
    """

    engine: Engine
    outcomes: tuple[str, ...]
    image_size: int
    digest: str
    form: str
    folder: Path | None = None

    def code(self, decision: str | list[str]) -> int:
        """Return the code of a decision of K outcomes: k, K to defer, K + 1 for several."""
        if isinstance(decision, list):
            return len(self.outcomes) + 1
        return len(self.outcomes) if decision == DEFER else self.outcomes.index(decision)

    def pixels(self, data: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 of an encoded image, by the one decode path.

        Raises RefusedError where it is not an image, or has more than `max_pixels`.
        """
        try:
            return resize(decode(data, max_pixels=max_pixels), self.image_size)
        except ImageRejectedError as error:
            reason = Reason.TOO_LARGE if "max_pixels" in str(error) else Reason.NOT_AN_IMAGE
            raise RefusedError(reason, one_line(error)) from error
        except MemoryError as error:
            raise RefusedError(Reason.TOO_LARGE, "not enough memory to decode it") from error


@dataclass(frozen=True)
class Result:
    """The answer to one image. line: as `predict` prints it, without "image". code: as `code`."""

    line: dict[str, Any]
    code: int
    probability: float


class _Serving:
    """A loaded bundle with its batches, and the number of requests that use it."""

    def __init__(self, loaded: Loaded, limits: Limits, on_batch: Callable[[int, float], object]):
        self.loaded = loaded
        self.n_requests = 0
        self.is_replaced = False
        self.batcher: Batcher[Answer] = Batcher(
            loaded.engine.answers,
            batch_images=limits.batch_images,
            wait_seconds=limits.batch_wait_seconds,
            on_batch=on_batch,
        )

    def release(self) -> None:
        """End the thread, and remove what was downloaded."""
        self.batcher.close()
        if self.loaded.folder is not None:
            shutil.rmtree(self.loaded.folder, ignore_errors=True)


class Deployment:
    """Answers images with the current bundle; all methods are called by the event loop's thread."""

    def __init__(self, loaded: Loaded, limits: Limits, stage2: Stage2 | None = None) -> None:
        """Take the first bundle, and who answers what it defers."""
        self.limits, self._stage2 = limits, stage2
        self.admission = Admission(limits)
        self.is_accepting = True  # what readiness says
        self._loop = asyncio.get_running_loop()
        self._decoders = ThreadPoolExecutor(N_DECODERS, "decode")
        self._asking = None if stage2 is None else ThreadPoolExecutor(stage2.n_at_once, "stage2")
        self._background: set[asyncio.Future[Any]] = set()
        self._current = self._serving(loaded)

    @property
    def current(self) -> Loaded:
        """The bundle that answers the next request."""
        return self._current.loaded

    async def results(self, images: Sequence[bytes | Pixels]) -> list[Result]:
        """Return one result per image: encoded, or (S, S, 3) uint8 of the current bundle.

        Raises:
            RefusedError: an image is none, the queue is full, or the time is over.
        """
        self.admission.accept(len(images))
        metrics.QUEUED.set(self.admission.n_images)
        serving, deadline = self._current, time.monotonic() + self.limits.request_seconds
        serving.n_requests += 1

        work = self._loop.create_task(self._computed(serving, images, deadline))
        work.add_done_callback(lambda _: self._done(serving, len(images)))
        self._keep(work)
        try:
            # What was begun goes on and counts until it ends, whoever stopped waiting.
            return await asyncio.wait_for(asyncio.shield(work), self.limits.request_seconds)
        except TimeoutError:
            raise RefusedError(
                Reason.TIMEOUT,
                f"no answer within {self.limits.request_seconds:g} s; try again later",
                1,
            ) from None

    def swap(self, loaded: Loaded) -> None:
        """Answer the requests from now on with another bundle.

        The earlier one answers what it has accepted, and is then released.
        """
        earlier, self._current = self._current, self._serving(loaded)
        earlier.is_replaced = True
        self._release_if_unused(earlier)

    async def close(self) -> None:
        """Release the bundle, after the last request."""
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._loop.run_in_executor(None, self._current.release)
        for pool in filter(None, (self._decoders, self._asking)):
            pool.shutdown(wait=False, cancel_futures=True)

    def _serving(self, loaded: Loaded) -> _Serving:
        metrics.BUNDLE.clear()
        metrics.BUNDLE.labels(loaded.digest, loaded.form).set(1)
        return _Serving(loaded, self.limits, self._on_batch)

    def _on_batch(self, n_images: int, seconds: float) -> None:
        metrics.BATCHES.observe(n_images)
        self._loop.call_soon_threadsafe(self.admission.computed, n_images, seconds)

    def _keep(self, work: "asyncio.Future[Any]") -> None:
        """Hold a task until it ends, and take its exception, for which nobody may wait any more."""
        self._background.add(work)
        work.add_done_callback(self._background.discard)
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def _done(self, serving: _Serving, n_images: int) -> None:
        self.admission.answered(n_images)
        metrics.QUEUED.set(self.admission.n_images)
        serving.n_requests -= 1
        self._release_if_unused(serving)

    def _release_if_unused(self, serving: _Serving) -> None:
        if serving.is_replaced and not serving.n_requests:
            self._keep(self._loop.run_in_executor(None, serving.release))

    async def _computed(
        self, serving: _Serving, images: Sequence[bytes | Pixels], deadline: float
    ) -> list[Result]:
        """Answer all images of a request; the first problem in their order is raised."""
        found = await asyncio.gather(
            *(self._result(serving, image, deadline) for image in images), return_exceptions=True
        )
        results = []
        for number, result in enumerate(found):
            if isinstance(result, Result):
                results.append(result)
            elif isinstance(result, RefusedError) and len(images) > 1:
                raise RefusedError(result.reason, f"image {number}: {result}", result.retry_after)
            else:
                raise result
        return results

    async def _result(self, serving: _Serving, image: bytes | Pixels, deadline: float) -> Result:
        answer = await self._answer(serving, image, deadline)
        metrics.VIEWS.inc(answer.views or 1)
        line = answer_document(answer)
        if answer.decision == DEFER:
            metrics.DEFERS.inc()
        if self._stage2 is not None:
            line = await self._with_stage2(line, image, deadline)

        decision = line["decision"]
        metrics.DECISIONS.labels(SEVERAL if isinstance(decision, list) else decision).inc()
        return Result(line, serving.loaded.code(decision), answer.probability)

    async def _answer(self, serving: _Serving, image: bytes | Pixels, deadline: float) -> Answer:
        """Decode where necessary, and let the image join a batch."""
        batcher = serving.batcher
        batcher.announce()
        try:
            if isinstance(image, bytes):
                image = await self._loop.run_in_executor(
                    self._decoders, self._decoded, serving.loaded, image, deadline
                )
        except BaseException:
            batcher.withdraw()
            raise
        return await asyncio.wrap_future(batcher.submit(image, deadline))

    def _decoded(self, loaded: Loaded, image: bytes, deadline: float) -> Pixels:
        if time.monotonic() > deadline:
            raise RefusedError(Reason.TIMEOUT, "not decoded in time; try again later", 1)
        return loaded.pixels(image, self.limits.pixels)

    async def _with_stage2(
        self, line: dict[str, Any], image: bytes | Pixels, deadline: float
    ) -> dict[str, Any]:
        """Return the line with the stage that decided it, and the decision of stage 2."""
        if line["decision"] != DEFER:
            return line | {"stage": 1}
        if not isinstance(image, bytes):
            found = Stage2Answer(error="pixels are not sent to stage 2; send the encoded image")
        else:
            found = await self._asked(image, deadline)
        if found.decision is None:
            return line | {"stage": 1, "stage2_error": found.error}
        return line | {"decision": found.decision, "stage": 2}

    async def _asked(self, image: bytes, deadline: float) -> Stage2Answer:
        assert self._stage2 is not None
        remaining = deadline - time.monotonic() - _ANSWER_SECONDS
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(
                self._loop.run_in_executor(self._asking, self._stage2.answer, image),
                max(0, remaining),
            )
        return Stage2Answer(error="no answer in the time of the request")
