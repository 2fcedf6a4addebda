"""Images of the phases: their list, their build and their push to a registry."""

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, PermanentError
from pipelines.sources import (
    BUILD_FILES,
    DEFAULT_REGISTRY,
    ROOT,
    SERVER,
    kind_of,
    phase_sources,
    phases,
    pinned,
    pushed_digests,
    record_pushed,
    reference,
    source_digest,
)

_BUILD_TIMEOUT_SECONDS = 3600
_CONFIRMED = re.compile(r"digest: (sha256:[0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class PhaseImage:
    """The image of one phase, or of the server.

    tagged: its name, with a digest of its sources as the tag. reference: what the compiled spec
    holds, the same with the digest of what was pushed under the name, if it was.
    """

    kind: str
    phase: str
    tagged: str
    reference: str

    @property
    def was_pushed(self) -> bool:
        """Whether the record of pushed images has it."""
        return self.reference != self.tagged


@dataclass(frozen=True, kw_only=True)
class Builder:
    """How docker is called.

    base_image: "" for the pinned one. wheels: folder of packages that are preferred to the index's.
    ca_file: PEM bundle that the package index needs; it is a build secret, so that no layer holds
    it.
    """

    docker: str = "docker"
    base_image: str = ""
    wheels: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def from_environment(cls) -> "Builder":
        """Return the builder that the environment describes.

        DOCKER and STREETVISION_BASE_IMAGE are ours; PIP_FIND_LINKS (a folder) and PIP_CERT are
        pip's.
        """
        wheels, ca_file = (
            Path(os.environ.get(Variable.PIP_FIND_LINKS, "")),
            os.environ.get(Variable.PIP_CERT),
        )
        return cls(
            docker=os.environ.get(Variable.DOCKER) or "docker",
            base_image=os.environ.get(Variable.BASE_IMAGE, ""),
            wheels=wheels if wheels.is_absolute() and wheels.is_dir() else None,
            ca_file=Path(ca_file) if ca_file else None,
        )


def pipeline_images(registry: str = DEFAULT_REGISTRY) -> list[PhaseImage]:
    """Return one image for each phase, sorted by kind and phase."""
    return _images(phases(), registry)


def all_images(registry: str = DEFAULT_REGISTRY) -> list[PhaseImage]:
    """Return the images of the phases and of the server, sorted by kind and phase."""
    return _images([*phases(), SERVER], registry)


def _images(names: Sequence[str], registry: str) -> list[PhaseImage]:
    digests = pushed_digests()
    images = []
    for name in names:
        kind = kind_of(name)
        tagged = reference(kind, name, registry=registry)
        images.append(PhaseImage(kind, name, tagged, pinned(tagged, digests)))

    return sorted(images)


def missing_images(images: Sequence[PhaseImage], builder: Builder) -> list[PhaseImage]:
    """Return the images that the engine does not hold.

    Raises ConfigError if no engine answers.
    """
    known = _docker(builder, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    return [image for image in images if image.tagged not in known]


def build_images(images: Sequence[PhaseImage], builder: Builder) -> None:
    """Build all `images`, those of a kind from one context.

    Raises PermanentError with docker's last lines.
    """
    with tempfile.TemporaryDirectory(prefix="streetvision-images-") as folder:
        context = Path(folder)
        write_context(context, images, builder.wheels)
        for image in images:
            _docker(builder, "build", *_build_options(image, builder), str(context))


def push_images(images: Sequence[PhaseImage], builder: Builder) -> list[PhaseImage]:
    """Push `images` to the registry in their names, and record the digest that it confirms.

    Return them with the references that the compiled spec has from then on. Raises PermanentError
    with docker's last lines.
    """
    pushed = []
    for image in images:
        found = _CONFIRMED.search(_docker(builder, "push", image.tagged))
        if found is None:
            raise PermanentError(f"{builder.docker} push printed no digest of {image.tagged}")

        record_pushed(image.tagged, found[1])
        named = pinned(image.tagged, {image.tagged: found[1]})
        pushed.append(dataclasses.replace(image, reference=named))

    return pushed


def write_context(folder: Path, images: Sequence[PhaseImage], wheels: Path | None = None) -> None:
    """Write the build context: Dockerfile, locks/, wheels/ and app/<phase>/ with its sources."""
    shutil.copy(ROOT / "images/Dockerfile", folder)
    locks = {name for image in images for name in BUILD_FILES[image.kind]} - {"images/Dockerfile"}
    for name in sorted(locks):
        _copy(ROOT / name, folder)

    for image in images:
        for source in phase_sources(image.phase):
            _copy(source, folder / "app" / image.phase)

    (folder / "wheels").mkdir()
    for wheel in sorted(wheels.glob("*.whl")) if wheels else []:
        shutil.copy(wheel, folder / "wheels")


def _copy(file: Path, folder: Path) -> None:
    target = folder / file.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    target.chmod(0o644)  # readable by any user, whatever the umask here


def _build_options(image: PhaseImage, builder: Builder) -> list[str]:
    arguments = {
        "KIND": image.kind,
        "PHASE": image.phase,
        "SOURCE_DIGEST": source_digest(image.kind, image.phase),
        "BASE_IMAGE": builder.base_image,
    }

    options = ["--quiet", "--tag", image.tagged]
    for name, value in arguments.items():
        options += ["--build-arg", f"{name}={value}"] if value else []
    if builder.ca_file is not None:
        options += ["--secret", f"id=ca,src={builder.ca_file}"]

    return options


def _docker(builder: Builder, *arguments: str) -> str:
    environment = os.environ | {Variable.DOCKER_BUILDKIT: "1"}
    command = [builder.docker, *arguments]
    try:
        finished = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{builder.docker!r} is not installed; install a Docker client or set DOCKER"
        ) from error

    if finished.returncode:
        last = " | ".join(finished.stderr.strip().splitlines()[-5:])
        kind = ConfigError if "docker daemon" in finished.stderr else PermanentError
        raise kind(f"{builder.docker} {arguments[0]} failed: {last}")

    return finished.stdout
