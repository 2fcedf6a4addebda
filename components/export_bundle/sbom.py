"""The libraries that a bundle was made with, as CycloneDX: the packages of the environment's lock.

The lock says which packages the project needs, the environment in which version they are. Serial
number and time, which CycloneDX allows to be absent, would make equal exports differ.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from components.export_bundle.config import ExportConfig
from components.shared.contracts.artifacts import sha256_file

SBOM = "sbom.cdx.json"
# What an image was installed from, where its Dockerfile puts it; and the lock of a checkout.
_LOCKS = (
    Path(sys.prefix, "share/streetvision/lock.txt"),
    Path(__file__).resolve().parents[2] / "locks" / "run.txt",
)
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==", re.MULTILINE)


def write_sbom(out: Path, config: ExportConfig) -> None:
    """Write sbom.cdx.json.

    Args:
        out: Where to write it.
        config: With the model's name and version.
    """
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    libraries = []
    for name, found in packages().items():
        url = PackageURL("pypi", name=name, version=found)
        libraries.append(
            Component(
                name=name,
                version=found,
                type=ComponentType.LIBRARY,
                purl=url,
                bom_ref=url.to_string(),
            )
        )

    model = Component(
        name=config.model_name or "model",
        version=config.model_version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        properties=[Property(name="streetvision:lock:sha256", value=_lock_digest())],
    )
    bom = Bom(components=libraries)
    bom.metadata.component = model
    bom.metadata.timestamp = bom.serial_number = None  # type: ignore[assignment]
    bom.register_dependency(model, libraries)
    (out / SBOM).write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n", encoding="utf-8")


def packages() -> dict[str, str]:
    """Return name -> installed version of the packages of the lock, or of all without a lock."""
    lock = _lock()
    if lock is None:
        names = {entry.metadata["Name"] for entry in distributions()}
    else:
        names = set(_PINNED.findall(lock.read_text(encoding="utf-8")))

    found = {}
    for name in sorted({re.sub(r"[-_.]+", "-", name).lower() for name in names}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # of another platform
    return found


def _lock() -> Path | None:
    return next((file for file in _LOCKS if file.is_file()), None)


def _lock_digest() -> str:
    lock = _lock()
    return "" if lock is None else sha256_file(lock)
