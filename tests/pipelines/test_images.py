"""Building and pushing of images, and the digests by which the compiled pipeline names them.

The docker client is a program that writes down how it was called and answers in docker's words.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, PermanentError
from pipelines import sources
from pipelines.cli.app import main
from pipelines.doctor.images import _listed
from pipelines.images import (
    Builder,
    all_images,
    build_images,
    pipeline_images,
    push_images,
    write_context,
)
from pipelines.sources import ROOT

REGISTRY = "registry.example:5000/streetvision"
DIGEST = f"sha256:{'5e' * 32}"
# docker's own words.
PUSHED = """\
The push refers to repository [registry.example:5000/streetvision/cpu]
5f70bf18a086: Pushed
{tag}: digest: {digest} size: 1993
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a docker client: `calls` has one JSON list per call; `answer` is push's."""
    folder = tmp_path / "docker"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(
        f"#!{sys.executable} -IS\n"
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(__file__).parent\n"
        "with (folder / 'calls').open('a') as stream:\n"
        "    stream.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "if sys.argv[1] == 'push':\n"
        "    print((folder / 'answer').read_text())\n"
    )
    program.chmod(0o755)
    (folder / "answer").write_text(PUSHED.format(tag="a-tag", digest=DIGEST))
    monkeypatch.setenv("DOCKER", str(program))
    monkeypatch.setattr(sources, "PUSHED", tmp_path / "pushed.json")
    return folder


def _calls(docker: Path, verb: str) -> list[list[str]]:
    """The calls of a verb since the last time that somebody looked."""
    file = docker / "calls"
    calls = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    return [call for call in calls if call[0] == verb]


def _containers(folder: Path) -> dict[str, dict[str, Any]]:
    """The containers of the compiled spec by their executors."""
    main(["compile", "--registry", REGISTRY, "--output", str(folder / "stage1.yaml")])
    spec = next(yaml.safe_load_all((folder / "stage1.yaml").read_text()))
    executors = spec["deploymentSpec"]["executors"]
    return {name: executor["container"] for name, executor in executors.items()}


def _images_of_the_spec(folder: Path) -> set[str]:
    return {container["image"] for container in _containers(folder).values()}


def test_pushed_images_are_in_the_spec_by_digest_and_others_by_tag(
    docker: Path, tmp_path: Path
) -> None:
    assert not any("@" in image for image in _images_of_the_spec(tmp_path))

    images = pipeline_images(REGISTRY)
    first = next(image for image in images if image.phase == "evaluate")
    rest = [image for image in images if image != first]
    (pushed,) = push_images([first], Builder.from_environment())
    assert pushed.reference == f"{first.tagged}@{DIGEST}"
    assert _calls(docker, "push") == [["push", first.tagged]]
    named = _images_of_the_spec(tmp_path)
    assert pushed.reference in named
    assert named - {pushed.reference} < {image.tagged for image in rest}

    # The export records them in the bundle's provenance.
    variables = {
        name: json.loads(entry["value"])
        for name, container in _containers(tmp_path).items()
        for entry in container.get("env", [])
        if entry["name"] == Variable.IMAGES
    }
    assert variables == {"exec-export-bundle": {"evaluate": pushed.reference}}

    expected = [pushed if image == first else image for image in images]
    assert pipeline_images(REGISTRY) == expected
    assert not any(image.was_pushed for image in pipeline_images())


def test_what_was_pushed_is_neither_built_nor_pushed_again(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = all_images(REGISTRY)
    options = ["images", "--registry", REGISTRY, "--build", "--push"]
    sources.record_pushed(images[0].tagged, DIGEST)
    main(options)
    names = [image.tagged for image in images]
    assert [call[1] for call in _calls(docker, "push")] == names[1:]

    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "@" in line] == [f"{name}@{DIGEST}" for name in names]
    assert f"{len(names) - 1} pushed, 1 were before" in printed
    main(options)
    assert not (docker / "calls").exists()

    # An engine of one's own needs the images all the same.
    main(options[:-1])
    assert len(_calls(docker, "build")) == len(names)


def test_a_build_has_hashed_locks_and_no_network_of_the_host(docker: Path) -> None:
    image = next(image for image in pipeline_images(REGISTRY) if image.kind == "trainer")
    build_images([image], Builder.from_environment())
    (call,) = _calls(docker, "build")
    assert "--network" not in call
    assert call[call.index("--tag") + 1] == image.tagged

    dockerfile = (ROOT / "images/Dockerfile").read_text()
    assert "constraints" not in dockerfile
    installs = [line for line in dockerfile.splitlines() if line.strip().startswith("$install")]
    assert len(installs) == 3
    assert all("--requirement" in line and "/build/locks/" in line for line in installs)


@pytest.mark.parametrize("kind", ["cpu", "trainer"])
def test_the_context_has_the_locks_of_the_kind_and_the_wheels_that_were_given(
    kind: str, tmp_path: Path
) -> None:
    wheels, context = tmp_path / "wheels", tmp_path / "context"
    wheels.mkdir()
    context.mkdir()
    wheel = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    (wheels / wheel).touch()
    image = next(image for image in pipeline_images() if image.kind == kind)
    write_context(context, [image], wheels)
    further = {"torch.txt", "cuda.txt"} if kind == "trainer" else set()
    there = {file.name for file in (context / "locks").iterdir()}
    assert there == {"installer.txt", f"image-{kind}.txt"} | further
    assert [file.name for file in (context / "wheels").iterdir()] == [wheel]


def test_a_push_without_a_digest_is_an_error_and_recorded_nowhere(docker: Path) -> None:
    (docker / "answer").write_text("The push refers to repository [registry.example/cpu]")
    image = pipeline_images(REGISTRY)[0]
    with pytest.raises(PermanentError, match=f"push printed no digest of {image.tagged}$"):
        push_images([image], Builder.from_environment())
    assert not sources.PUSHED.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": "latest"}', "'a' has 'latest', must be sha256: and 64 hex digits"),
        ('{"a": 1}', "a: Input should be a valid string"),
        ("{", "not valid JSON"),
    ],
)
def test_a_damaged_record_is_an_error_with_its_name(docker: Path, text: str, problem: str) -> None:
    sources.PUSHED.write_text(text)
    with pytest.raises(ConfigError, match=problem) as error:
        pipeline_images(REGISTRY)
    assert str(sources.PUSHED) in str(error.value)


def test_a_node_lists_an_image_by_its_digest_without_the_tag() -> None:
    assert _listed(f"{REGISTRY}/cpu:a-tag@{DIGEST}") == f"{REGISTRY}/cpu@{DIGEST}"
    assert _listed(f"{REGISTRY}/cpu@{DIGEST}") == f"{REGISTRY}/cpu@{DIGEST}"
    assert _listed(f"{REGISTRY}/cpu:a-tag") == f"{REGISTRY}/cpu:a-tag"
    assert _listed("streetvision/cpu:a-tag") == "docker.io/streetvision/cpu:a-tag"
