"""KFP interface of fingerprint_source."""

from typing import NamedTuple

from kfp import dsl

from components.fingerprint_source.config import FingerprintConfig
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(FingerprintConfig)
def fingerprint_source(
    data: str = "", extra_sources: str = "", backbone: str = "",
) -> NamedTuple("Outputs", [("data_digest", str), ("backbone_digest", str)]):  # type: ignore[valid-type]
    """Digest the listing of the data source and of the backbone; never cached, so that new data are noticed."""
    arguments = dict(locals())
    from components.fingerprint_source import config, step
    from components.shared.step import execute
    return execute(step.run, config.FingerprintConfig, arguments)
