"""The deployment: each answer belongs to its image, whatever goes wrong beside it, and no swap
loses one.
"""

import asyncio
import io
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from components.export_bundle.onnx_export import write_onnx
from components.shared.serving.answer import answer_document
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.server.deployment import Deployment, Loaded
from components.shared.serving.server.limits import Limits
from components.shared.serving.server.refusals import Reason, RefusedError
from components.shared.serving.stage2 import Stage2
from tests.bundles import noise
from tests.components.export_bundle.test_onnx_graph import CASES, bundle_of
from tests.serving_server import NAMES, SIZE, FakeEngine, loaded, photo, running

PNG = {"content-type": "image/png"}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def test_each_answer_is_that_of_its_image() -> None:
    engine = FakeEngine(seconds=0.002)

    async def answers() -> list[float]:
        deployment = Deployment(loaded(engine), Limits())
        found = await asyncio.gather(
            *(deployment.results([photo(grey), photo(grey + 1)]) for grey in range(0, 60, 2))
        )
        await deployment.close()
        return [result.probability for results in found for result in results]

    assert np.allclose(np.array(run(answers())) * 255, np.arange(60), atol=1e-6)
    assert max(engine.batches) > 1


def test_decisions_have_the_codes_of_their_outcomes() -> None:
    bundle = loaded()
    assert [bundle.code(name) for name in (*NAMES, "defer", list(NAMES))] == [0, 1, 2, 3]


def test_a_bad_image_is_refused_and_the_others_of_the_request_with_it() -> None:
    async def refused(images: list[bytes]) -> RefusedError:
        deployment = Deployment(loaded(), Limits(pixels=1000))
        with pytest.raises(RefusedError) as found:
            await deployment.results(images)
        assert deployment.admission.n_images == 0
        await deployment.close()
        return found.value

    first = run(refused([b"not an image"]))
    assert str(first).startswith("not an image in a supported format")
    second = run(refused([photo(1), photo(1, size=50)]))
    assert str(second) == "image 1: 50 x 50 is more than max_pixels=1000"
    assert second.reason is Reason.TOO_LARGE


def test_a_full_queue_refuses_and_recovers() -> None:
    engine = FakeEngine()
    engine.gate.clear()

    async def scenario() -> list[float]:
        deployment = Deployment(loaded(engine), Limits(queued_images=2))
        waiting = [asyncio.create_task(deployment.results([photo(10)])) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(RefusedError, match="2 images are waiting"):
            await deployment.results([photo(20)])
        engine.gate.set()
        results = [*await asyncio.gather(*waiting), await deployment.results([photo(20)])]
        await deployment.close()
        return [round(found[0].probability * 255) for found in results]

    assert run(scenario()) == [10, 10, 20]


def test_a_request_ends_after_its_time_and_counts_until_its_work_ends() -> None:
    engine = FakeEngine()
    engine.gate.clear()

    async def scenario() -> None:
        deployment = Deployment(loaded(engine), Limits(request_seconds=0.1))
        with pytest.raises(RefusedError, match=r"no answer within 0\.1 s") as refused:
            await deployment.results([photo(10)])
        assert refused.value.reason.status == 503
        assert refused.value.retry_after == 1
        assert deployment.admission.n_images == 1
        engine.gate.set()
        await deployment.close()
        assert deployment.admission.n_images == 0

    run(scenario())


def test_a_swap_answers_old_requests_with_the_old_bundle_and_removes_it(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    old = FakeEngine()
    old.gate.clear()
    new = FakeEngine()

    async def scenario() -> None:
        deployment = Deployment(loaded(old, folder=folder), Limits())
        waiting = asyncio.create_task(deployment.results([photo(10)]))
        await asyncio.sleep(0.05)
        deployment.swap(loaded(new, digest="b" * 64))
        assert deployment.current.digest == "b" * 64
        await deployment.results([photo(20)])
        assert (old.batches, new.batches) == ([], [1])
        assert folder.exists()

        old.gate.set()
        assert round((await waiting)[0].probability * 255) == 10
        await deployment.close()
        assert (old.batches, new.batches) == ([1], [1])
        assert not folder.exists()

    run(scenario())


def test_swaps_under_load_drop_nothing() -> None:
    async def scenario() -> None:
        deployment = Deployment(loaded(FakeEngine(0.001)), Limits(queued_images=1000))

        async def ask(grey: int) -> int:
            await asyncio.sleep(grey / 1000)
            return round((await deployment.results([photo(grey)]))[0].probability * 255)

        asking = [asyncio.create_task(ask(grey)) for grey in range(200)]
        for number in range(10):
            await asyncio.sleep(0.02)
            deployment.swap(loaded(FakeEngine(0.001), digest=f"{number:064d}"))
        assert await asyncio.gather(*asking) == list(range(200))
        await deployment.close()

    run(scenario())


def _line(stage2: Stage2, image: Any, **limits: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        deployment = Deployment(loaded(), Limits(**limits), stage2)
        line = (await deployment.results([image]))[0].line
        await deployment.close()
        return line

    found: dict[str, Any] = run(scenario())
    return found


def test_stage_2_decides_what_was_deferred_and_nothing_else() -> None:
    asked = []

    def ask(image: bytes) -> str:
        asked.append(image)
        return "Roadwork"

    stage2 = Stage2(ask, NAMES, 1)
    deferred = photo(128)
    line = _line(stage2, deferred)
    assert (line["decision"], line["stage"]) == ("Roadwork", 2)
    assert asked == [deferred]

    line = _line(stage2, photo(0))
    assert (line["decision"], line["stage"]) == ("none", 1)
    assert len(asked) == 1


def test_a_stage_2_that_fails_leaves_the_image_deferred() -> None:
    line = _line(Stage2(lambda image: "maybe", NAMES, 1), photo(128))
    assert (line["decision"], line["stage"]) == ("defer", 1)
    assert "answered 'maybe'" in line["stage2_error"]

    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    line = _line(Stage2(lambda image: "none", NAMES, 1), pixels)
    assert line["stage2_error"] == "pixels are not sent to stage 2; send the encoded image"


def test_a_slow_stage_2_does_not_cost_the_answer_of_stage_1() -> None:
    import time

    slow = Stage2(lambda image: time.sleep(1), NAMES, 1)
    line = _line(slow, photo(128), request_seconds=0.4)
    assert (line["decision"], line["stage"]) == ("defer", 1)
    assert line["stage2_error"] == "no answer in the time of the request"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three classes, gate", "three classes, sets", "views max"])
def test_several_classes_and_views_get_the_answers_of_the_bundle(name: str, tmp_path: Path) -> None:
    bundle = bundle_of(CASES[name], tmp_path)
    write_onnx(bundle, tmp_path / "onnx")
    predictor = OnnxPredictor(bundle, threads=1)
    model = Loaded(
        engine=predictor,
        outcomes=predictor.policy.outcomes.names,
        image_size=bundle.spec.image_size,
        digest="a" * 64,
        form="onnx",
    )
    with running(model) as server:
        for pixels in noise(20, seed=9):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            found = httpx.post(f"{server.url}/predict", content=stream.getvalue(), headers=PNG)
            found.raise_for_status()
            (expected,) = predictor.answers(predictor.pixels(stream.getvalue())[None])
            line = json.loads(json.dumps(answer_document(expected)))
            assert found.json() | {"image": None} == {"image": None} | line
