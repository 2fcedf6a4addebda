"""KFP interface of import_bundle."""

from kfp import dsl

from components.artifact_types import Bundle
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def import_bundle(
    imported: dsl.Output[Bundle],
    config: dict,
    bundle: str = "",
    bundle_registry: str = "",
) -> None:
    """Import the champion of the registry, or another bundle, and verify it.

    Args:
        config: Options of the step.
        bundle: Bundle, where `config` does not name it.
        bundle_registry: Registry of bundles, where `config` does not name it.
    """
    from components.import_bundle.step import run
    from components.shared.contracts.step import execute

    given = {"bundle": bundle, "bundle_registry": bundle_registry}
    places = {name: value for name, value in given.items() if value}
    execute(run, {**config, **places}, imported=imported)
