"""Loading of a bundle: verified, opened as one of its forms, and asked once before it answers."""

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.machine import n_usable_cores
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.chosen_bundle import CHAMPION, chosen_bundle, digest_of
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.server.deployment import Loaded
from components.shared.storage.registry import BundleRegistry

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Loader:
    """How bundles are loaded.

    form: "onnx" or "onnx_int8". threads: of the engine; 0: as many as the container may use.
    folder: where bundles are downloaded.
    """

    form: str
    threads: int
    folder: Path

    def given(self, place: str, registry: str = "", digest: str | None = None) -> Loaded:
        """Load the bundle of a folder, an address, a digest in a registry, or champion.

        Args:
            place: what names it.
            registry: s3://bucket/prefix; empty: that of the environment.
            digest: which the bundle must have; None accepts any.

        Raises:
            ConfigError: there is no such bundle, or it lacks the form.
            ArtifactError: the bundle is damaged, or another one.
        """
        folder = self._new_folder()
        bundle = chosen_bundle(place, registry, folder)
        found = read_manifest(bundle.path).content_digest
        if digest not in (None, found):
            raise ArtifactError(f"{place}: its content digest is {found}, expected {digest}")
        return self._loaded(bundle, folder)

    def registered(self, registry: BundleRegistry, digest: str = CHAMPION) -> Loaded:
        """Load a bundle of a registry, by default its champion. Raises as `given`."""
        digest = digest_of(digest, registry)
        folder = self._new_folder()
        try:
            registry.get_bundle(digest, folder / "bundle")
            bundle = open_bundle(folder / "bundle", digest)
            bundle.warn_unchecked(f"bundle {digest[:12]}")
            return self._loaded(bundle, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _loaded(self, bundle: Bundle, folder: Path) -> Loaded:
        """Load a verified bundle. The one place that every served bundle passes."""
        engine = OnnxPredictor(bundle, self.form, threads=self.threads or usable_cores())
        size = bundle.spec.image_size
        engine.answers(np.zeros((1, size, size, 3), np.uint8))  # allocates what requests need

        return Loaded(
            engine=engine,
            outcomes=engine.policy.outcomes.names,
            image_size=size,
            digest=read_manifest(bundle.path).content_digest,
            form=self.form,
            folder=folder,
        )


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return how many cores the process may use: those of the machine, less a container's limit.

    quota: cpu.max of the control group (version 2), "QUOTA PERIOD" in microseconds or "max PERIOD".
    """
    cores = n_usable_cores()
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return cores if limit == "max" else min(cores, max(1, math.floor(int(limit) / int(period))))
    except (OSError, ValueError):
        return cores
