"""Import of an exported bundle, unchanged and verified, as an artifact of a run."""

import shutil

from components.import_bundle.config import ImportBundleConfig
from components.shared.contracts.artifacts import make_readable, read_manifest, working
from components.shared.contracts.listing import say
from components.shared.contracts.step import OutputDir, main
from components.shared.serving.chosen_bundle import chosen_bundle


def run(config: ImportBundleConfig, *, imported: OutputDir) -> None:
    """Write the bundle, with the manifest and so with the digest that it has.

    Args:
        config: The step's configuration.
        imported: The bundle.

    Raises:
        ConfigError: It is no such place, or the registry has no such bundle.
        DataError: The registry has no champion yet.
        ArtifactError: The bundle is damaged.
    """
    with working(imported) as folder:
        found = chosen_bundle(config.bundle, config.bundle_registry, folder)
        if not found.path.is_relative_to(folder):  # a folder that was given stays where it is
            shutil.copytree(found.path, folder / "bundle")
            make_readable(folder / "bundle")

        shutil.rmtree(imported, ignore_errors=True)
        (folder / "bundle").replace(imported)

    say(f"bundle {read_manifest(imported).content_digest[:12]} from {config.bundle}")


if __name__ == "__main__":
    main(run, ImportBundleConfig)
