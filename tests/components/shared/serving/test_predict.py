"""The command line that answers from a bundle."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.shared.calibration.linear import Temperature
from components.shared.contracts.artifacts import read_manifest, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.environment import Variable
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import ScrcPolicy
from components.shared.serving import predict
from components.shared.serving.signature import sign_bundle
from tests.bundles import Inputs, deferring_bundle, make_inputs, onnx_bundle, write_images
from tests.hostile_files import HOSTILE, without_root_rights
from tests.signing import key_pair

THRESHOLD_MARGIN = 3.5
ROOT = str(Path(predict.__file__).parents[3])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), threshold_margin=THRESHOLD_MARGIN)


@pytest.fixture(scope="module")
def bundle(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inputs.export(tmp_path_factory.mktemp("exported") / "bundle")


def _unsigned(bundle: Path) -> str:
    """Return what stderr has, and all it has, where no bundle is signed and no key is named."""
    return f"warning: {bundle}: is not signed; its sums do not say who made it\n"


class Run:
    """`python -m components.shared.serving.predict` inside this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        self._monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            predict.main()
        captured = self._capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


def _lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_every_kind_of_image_gets_a_probability(run: Run, bundle: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "kinds")
    code, out, _ = run(bundle, *images)
    lines = _lines(out)
    assert code == 0
    assert [line["image"] for line in lines] == [str(image) for image in images]
    assert all(0 <= line["probability"] <= 1 for line in lines)
    threshold = lines[0]["threshold"]
    assert threshold == pytest.approx(0.970688, abs=1e-6)
    assert all(
        (line["decision"] == "Roadwork") is (line["probability"] > threshold) for line in lines
    )
    by_name = {Path(line["image"]).name: line["probability"] for line in lines}
    assert by_name["rgb.jpg"] != by_name["turned.jpg"]  # EXIF counts


@pytest.mark.parametrize("names", [("Plain", "Pothole"), ("Pothole", "Plain")])
def test_own_classes_are_answered_by_name(run: Run, names: tuple[str, str], tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, class_names=names, positive_class="Pothole")
    path, images = inputs.export(tmp_path / "bundle"), write_images(tmp_path / "kinds")
    code, out, _ = run(path, *images)
    assert code == 0
    for line in _lines(out):
        expected = "Pothole" if line["probability"] > line["threshold"] else "Plain"
        assert line["decision"] == expected
    assert {line["decision"] for line in _lines(out)} == set(names)


def test_several_classes_are_answered_by_name(run: Run, tmp_path: Path) -> None:
    outcomes = Outcomes.of(("stop", "yield", "bus"))
    policy = ScrcPolicy(
        kind="scrc",
        outcomes=outcomes,
        threshold=0.5,
        threshold_margin=0.0,
        risk="error",
        alpha=0.1,
        delta=0.1,
        coverage_lower_bound=0.5,
        answer_from=(0.0, -1.0, 9.0),
        single_from=0.8,
        calibrator=Temperature(3.0),
    )
    path = make_inputs(tmp_path, policy=policy).export(tmp_path / "bundle", policy="scrc")
    code, out, _ = run(path, *write_images(tmp_path / "kinds"))
    assert code == 0
    decisions = [line["decision"] for line in _lines(out)]
    assert "defer" in decisions
    assert any(isinstance(decision, list) for decision in decisions)
    for line in _lines(out):
        assert "threshold" not in line
        assert list(line["probabilities"]) == sorted(
            outcomes.names, key=lambda name: -line["probabilities"][name]
        )
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_broken_images_get_an_error_and_the_others_an_answer(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    good = [image for image in write_images(tmp_path / "kinds") if image.name != "large.jpg"]
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "kinds/rgb.jpg").read_bytes()[:400])
    broken = [
        tmp_path / "empty.jpg",
        tmp_path / "text.png",
        tmp_path / "cut.jpg",
        tmp_path / "absent.jpg",
        tmp_path,
    ]
    mixed = [broken[0], *good[:2], *broken[1:3], *good[2:], *broken[3:]]
    code, out, _ = run(bundle, "--batch-size", "3", *mixed)
    lines = _lines(out)
    assert code == 42
    assert [line["image"] for line in lines] == [str(image) for image in mixed]
    assert {line["image"] for line in lines if "error" in line} == {str(image) for image in broken}
    assert all("decision" in line for line in lines if "error" not in line)
    errors = {Path(line["image"]).name: line["error"] for line in lines if "error" in line}
    assert errors["empty.jpg"] == "empty file"
    assert errors["absent.jpg"] == "No such file or directory"


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_what_is_no_file_gets_an_error_and_costs_the_others_nothing(
    run: Run, bundle: Path, tmp_path: Path, kind: str
) -> None:
    """A pipe blocked for ever, a device filled the memory, a terabyte of zeros too."""
    good = write_images(tmp_path / "kinds")[0]
    make, reason = HOSTILE[kind]
    hostile = make(tmp_path / "0.jpg")
    code, out, err = run(bundle, good, hostile, good)
    lines = _lines(out)

    assert (code, err) == (42, _unsigned(bundle))
    assert [line["image"] for line in lines] == [str(good), str(hostile), str(good)]
    assert ["error" in line for line in lines] == [False, True, False]
    assert re.search(reason, lines[1]["error"])


def test_an_image_that_may_not_be_read_gets_an_error(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    good = write_images(tmp_path / "kinds")[0]
    closed = tmp_path / "closed.jpg"
    shutil.copyfile(good, closed)
    closed.chmod(0)
    with without_root_rights():
        code, out, _ = run(bundle, closed, good)
    assert code == 42
    assert [line.get("error") for line in _lines(out)] == ["Permission denied", None]


def test_an_image_that_fills_the_memory_gets_an_error(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for an allocation that fails: which image of a batch meets it is chance."""
    images = write_images(tmp_path / "kinds")[:2]
    read = predict.read_regular

    def failing(file: Path) -> bytes:
        if file == images[0]:
            raise MemoryError
        return read(file)

    monkeypatch.setattr(predict, "read_regular", failing)
    code, out, _ = run(bundle, *images)
    assert code == 42
    assert [line.get("error") for line in _lines(out)] == ["not enough memory to decode it", None]


def test_large_and_damaged_images_add_nothing_to_stderr(bundle: Path, tmp_path: Path) -> None:
    """Pillow warned of more than 89 megapixels, libtiff printed its own lines."""
    large, damaged = tmp_path / "large.png", tmp_path / "damaged.tif"
    Image.new("1", (9500, 9500)).save(large)
    Image.effect_noise((64, 64), 50).save(damaged, compression="tiff_deflate")
    with Image.open(damaged) as image:
        first = image.tag_v2[273][0]  # StripOffsets
    content = bytearray(damaged.read_bytes())
    content[first : first + 20] = bytes(20)
    damaged.write_bytes(content)

    finished = _finished(bundle, large, damaged)
    assert (finished.returncode, finished.stderr.decode()) == (42, _unsigned(bundle))
    assert ["error" in line for line in _lines(finished.stdout.decode())] == [False, True]


def _process(*arguments: str | Path) -> list[str | bytes]:
    return [sys.executable, "-m", "components.shared.serving.predict", *map(os.fsencode, arguments)]


def _finished(
    *arguments: str | Path, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _process(*arguments),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": ROOT, "PYTHONIOENCODING": encoding},
        check=False,
    )


def test_names_are_valid_json_in_every_locale(bundle: Path) -> None:
    """A name that is no UTF-8 ended the program; one with escape characters acted on terminals."""
    names = [
        b"\xff.jpg",
        "ü😀.jpg".encode(),
        b"\x1b]0;x\x07.jpg",
        "\u202e\x9b.jpg".encode(),
        b"a\nb.jpg",
    ]
    for encoding in ("utf-8:strict", "ascii:strict"):
        finished = _finished(bundle, *map(os.fsdecode, names), encoding=encoding)
        assert finished.returncode == 42, finished.stderr
        assert finished.stdout.replace(b"\n", b"").decode(encoding.partition(":")[0]).isprintable()
        lines = _lines(finished.stdout.decode())
        assert [os.fsencode(line["image"]) for line in lines] == names


def test_a_reader_that_goes_ends_the_program_without_a_word(bundle: Path, tmp_path: Path) -> None:
    # More lines than a pipe holds: the last ones are written after the reader has gone.
    images = write_images(tmp_path / "kinds")[:1] * 400
    process = subprocess.Popen(
        _process("--batch-size", "50", bundle, *images),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"{"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read().decode() == _unsigned(bundle)
    process.stderr.close()
    assert process.wait() == 141  # 128 + SIGPIPE, as of every program


def test_an_image_with_the_wrong_suffix_is_answered_as_the_stock_pipeline_would(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "kinds")
    shutil.copyfile(tmp_path / "kinds/rgba.png", tmp_path / "kinds/rgba.jpg")
    code, out, _ = run(bundle, tmp_path / "kinds/rgba.png", tmp_path / "kinds/rgba.jpg")
    assert code == 0
    assert len({line["probability"] for line in _lines(out)}) == 1


def test_a_changed_bundle_is_refused_with_every_difference(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    weights = copy / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    (copy / "notes.txt").write_text("mine")
    (copy / "README.md").unlink()
    code, out, err = run(copy, "photo.jpg")
    assert (code, out) == (42, "")
    assert "model/model.safetensors: sha256" in err
    assert "notes.txt: not in the manifest" in err
    assert "README.md: missing" in err
    assert len(err.splitlines()) == 1


def _reissue(bundle: Path, path: Path, change: Any) -> Path:
    """The bundle after `change(directory)`, with a manifest that agrees with it."""
    with writing(path, kind="Bundle", step="export_bundle", config=Config()) as out:
        shutil.copytree(bundle, out, dirs_exist_ok=True)
        (out / "manifest.json").unlink()
        change(out)
    return path


def _edit_policy(inputs: Inputs) -> Any:
    document = inputs.policy.to_json() | {"threshold": 0.5, "threshold_margin": 0.0}
    return lambda out: write_json(out / "policy.json", document)


def test_a_file_changed_together_with_the_manifest_differs_from_bundle_json(
    run: Run, inputs: Inputs, bundle: Path, tmp_path: Path
) -> None:
    code, _, err = run(_reissue(bundle, tmp_path / "bundle", _edit_policy(inputs)), "photo.jpg")
    assert code == 42
    assert "bundle.json: disagrees with manifest.json about policy.json" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda out: (out / "policy.json").unlink(),
            "must hold exactly one policy.json, holds none",
        ),
        (
            lambda out: shutil.copyfile(out / "policy.json", out / "model/policy.json"),
            "holds model/policy.json, ",
        ),
    ],
)
def test_none_or_two_policies_are_refused(
    run: Run, bundle: Path, tmp_path: Path, change: Any, message: str
) -> None:
    code, _, err = run(_reissue(bundle, tmp_path / "bundle", change), "photo.jpg")
    assert code == 42
    assert message in err


def test_what_is_not_a_bundle_is_refused(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere", "photo.jpg")[0] == 42
    code, _, err = run(inputs.root / "checkpoint", "photo.jpg")
    assert code == 42
    assert "kind is 'Checkpoint'" in err


def test_a_digest_accepts_one_bundle_only(run: Run, bundle: Path, tmp_path: Path) -> None:
    image = write_images(tmp_path / "kinds")[0]
    digest = read_manifest(bundle).content_digest
    assert run("--digest", digest.upper(), bundle, image)[0] == 0
    code, out, err = run("--digest", "0" * 64, bundle, image)
    assert (code, out) == (42, "")
    assert f"its content digest is {digest}, expected '{'0' * 64}'" in err
    code, _, err = run("--digest", digest[:-1], bundle, image)
    assert code == 2
    assert "must be 64 hex digits" in err


def test_help_teaches_by_example(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "the content digest that the run printed" in " ".join(out.split())
    assert "python -m components.shared.serving.predict bundle photo1.jpg" in out
    assert '"decision": "Roadwork"' in out
    code, _, err = run("bundle", "a.jpg", "--batch-size", "0")
    assert code == 2
    assert "must be a whole number of at least 1" in err


def test_a_refusal_does_not_wait_for_torch(bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom components.shared.serving import predict\nsys.argv[1:] = ['nowhere',"
        " 'photo.jpg']\ntry:\n    predict.main()\nexcept SystemExit as end:\n    print(end.code,"
        " [name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    root = str(Path(predict.__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root}
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert finished.stdout.split() == ["42", "[]"]


def test_the_onnx_form_answers_alike_without_torch(
    run: Run, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    bundle, images = onnx_bundle(tmp_path_factory), write_images(tmp_path / "images")
    own, onnx = (
        _lines(run(bundle, *images, "--form", form)[1]) for form in ("transformers", "onnx")
    )
    assert [line["decision"] for line in onnx] == [line["decision"] for line in own]
    assert {line["decision"] for line in own} == {"None", "Roadwork"}
    np.testing.assert_allclose(
        [line["probability"] for line in onnx], [line["probability"] for line in own], atol=1e-4
    )

    program = (
        "import sys\nfrom components.shared.serving import predict\ntry:\n    predict.main()\n"
        "except SystemExit as end:\n    print(end.code, [name for name in ('torch',"
        " 'transformers', 'onnx') if name in sys.modules])\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, str(bundle), str(images[0]), "--form", "onnx"],
        capture_output=True,
        text=True,
        cwd=Path(predict.__file__).parents[3],
        check=True,
    )
    line, end = finished.stdout.splitlines()
    assert json.loads(line) == onnx[0]
    assert end == "0 []"


def test_a_form_that_the_bundle_lacks_is_refused(run: Run, bundle: Path, tmp_path: Path) -> None:
    code, _, err = run(bundle, "photo.jpg", "--form", "onnx")
    assert (code, "has no onnx/; export it with formats" in err) == (42, True)
    code, _, err = run(bundle, "photo.jpg", "--form", "onnx", "--explain", tmp_path / "why.png")
    assert (code, "--explain needs --form transformers" in err) == (42, True)


@pytest.fixture(scope="module")
def deferring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose policy answers nothing."""
    return deferring_bundle(tmp_path_factory.mktemp("deferring"))


@pytest.fixture
def large_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's, which knows JPEGs and fails for everything else."""
    (tmp_path / "large_model.py").write_text(
        "def ask(image):\n"
        "    if not image.startswith(b'\\xff\\xd8'):\n"
        "        raise ValueError('no JPEG')\n"
        "    return 'Roadwork'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "large_model", raising=False)


def test_stage_2_answers_what_is_deferred_and_a_failure_stays_deferred(
    run: Run, deferring: Path, large_model: None, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no image")
    images = [tmp_path / name for name in ("a.jpg", "b.png", "c.jpg")]

    code, out, _ = run("--stage2", "large_model:ask", deferring, *images[:2])
    first, second = _lines(out)
    assert (first["decision"], first["stage"]) == ("Roadwork", 2)
    assert (second["decision"], second["stage"]) == ("defer", 1)
    assert second["stage2_error"] == "ValueError: no JPEG"
    assert code == 1

    plain = _lines(run(deferring, images[0])[1])[0]
    assert plain == {"image": str(images[0]), "decision": "defer"} | {
        name: first[name] for name in plain if name not in ("image", "decision")
    }
    assert run("--stage2", "large_model:ask", deferring, images[0])[0] == 0

    code, out, _ = run("--stage2", "large_model:ask", deferring, *images)
    assert code == 42
    assert "stage" not in _lines(out)[2]


def test_stage_2_is_not_asked_about_what_stage_1_answers(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    # Nobody listens at this address.
    code, out, _ = run("--stage2", "http://127.0.0.1:1/x", bundle, tmp_path / "a.jpg")
    assert code == 0
    assert _lines(out)[0]["stage"] == 1


def test_a_stage_2_that_is_none_is_refused_before_an_image_is_read(run: Run, bundle: Path) -> None:
    code, out, err = run("--stage2", "no_module_of_mine:ask", bundle, "none.jpg")
    assert (code, out) == (42, "")
    refusal = "error: stage2='no_module_of_mine:ask': No module named 'no_module_of_mine'\n"
    assert err == _unsigned(bundle) + refusal


def test_a_bundle_is_answered_from_where_a_trusted_key_has_signed_it(
    bundle: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "signer")
    path = shutil.copytree(bundle, tmp_path / "bundle")
    image, *_ = write_images(tmp_path / "images")
    code, out, err = run("--trusted-keys", public, path, image)
    assert (code, out) == (42, "")
    assert "is not signed" in err
    code, out, err = run("--batch-size", 1, path, image, image)
    assert (code, err, len(_lines(out))) == (0, _unsigned(path), 2), "once, not for each image"

    sign_bundle(path, private)
    code, out, err = run("--trusted-keys", public, path, image)
    assert (code, err, len(_lines(out))) == (0, "", 1)
    code, out, err = run(path, image)
    assert (code, len(_lines(out))) == (0, 1)
    assert err.startswith("warning: ")
    assert "nobody has checked by whom" in err

    _, foreign = key_pair(tmp_path, "foreign")
    monkeypatch.setenv(Variable.TRUSTED_KEYS, str(foreign))
    code, out, err = run(path, image)
    assert (code, out) == (42, "")
    assert "is signed by the key" in err
