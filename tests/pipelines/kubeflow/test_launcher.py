"""The launcher's settings, as KFP resolves them, and what of them is refused."""

import pytest
import yaml

from components.shared.contracts.errors import ConfigError
from pipelines.kubeflow.launcher import launcher_store


def test_the_launchers_settings_are_resolved_as_kfp_does() -> None:
    """Source: backend/src/v2/config of KFP 2.17.0."""
    stock = launcher_store(None)
    assert (stock.root, stock.endpoint, stock.secret) == (
        "minio://mlpipeline/v2/artifacts",
        "seaweedfs.kubeflow:9000",
        "mlpipeline-minio-artifact",
    )

    credentials = {
        "fromEnv": False,
        "secretRef": {"secretName": "a", "accessKeyKey": "k", "secretKeyKey": "s"},
    }
    ours = {
        "fromEnv": False,
        "secretRef": {"secretName": "b", "accessKeyKey": "k", "secretKeyKey": "s"},
    }
    override = {
        "bucketName": "streetvision",
        "keyPrefix": "runs/",
        "endpoint": "minio:9000",
        "credentials": ours,
    }
    default = {
        "endpoint": "seaweedfs:9000",
        "disableSSL": True,
        "region": "r",
        "credentials": credentials,
    }
    providers = yaml.safe_dump({"minio": {"default": default, "overrides": [override]}})

    found = launcher_store(
        {"defaultPipelineRoot": "minio://streetvision/runs", "providers": providers}
    )
    assert (found.endpoint, found.secret, found.secure, found.region) == (
        "minio:9000",
        "b",
        False,
        "r",
    )
    for root in ("minio://streetvision/other", "minio://mlpipeline/runs"):
        found = launcher_store({"defaultPipelineRoot": root, "providers": providers})
        assert (found.endpoint, found.secret) == ("seaweedfs:9000", "a")

    # Another scheme than the root's has no effect; s3:// without a provider means the pod's own
    # credentials.
    assert launcher_store({"providers": providers.replace("minio:\n", "s3:\n", 1)}) == stock
    assert launcher_store({"defaultPipelineRoot": "s3://streetvision/runs"}).secret == ""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"defaultPipelineRoot": "gs://bucket"}, "is neither minio:// nor s3://; correct it there"),
        ({"providers": "minio: {default: {}}"}, "no default credentials; add default.credentials"),
        ({"providers": "minio: ["}, "is no YAML; correct it there"),
        ({"providers": "minio: text"}, "minio in the providers of kfp-launcher is no mapping"),
        (
            {"providers": "minio: {default: {credentials: {fromEnv: false, secretRef: {}}}}"},
            "nor a complete secretRef; give secretName",
        ),
    ],
)
def test_settings_that_the_launcher_refuses_are_refused_with_what_to_do(
    data: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        launcher_store(data)
