"""All names of kfp that are not part of its documented interface, read from kfp 2.17.0.

kfp has no public way to look a task up in the cache of local runs, to start a local step without a
shell, to name the namespace of a client, to send a request of one's own, or to give a component
another name. Every such use goes
through this module, which refuses another version: a private name may keep its spelling and change
its meaning.
"""

from typing import Any

import kfp

from components.shared.contracts.errors import ConfigError

VERSION = "2.17.0"


def require_version(installed: str) -> None:
    """Raise ConfigError if `installed` is not the version that these names were read from."""
    if installed != VERSION:
        raise ConfigError(
            f"kfp {installed} is installed, and pipelines/kfp_private.py was read from kfp"
            f" {VERSION}; pip install --constraint constraints.txt kfp, or read the names again"
        )


require_version(kfp.__version__)

# Imported after the check, since another version may lack them.
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials  # noqa: E402
from kfp.dsl.python_component import PythonComponent  # noqa: E402
from kfp.local import cache as local_cache  # noqa: E402
from kfp.local import (  # noqa: E402
    executor_input_utils,
    placeholder_utils,
    status,
    subprocess_task_handler,
)
from kfp.local.cache import LocalCache, _MissingArtifactError  # noqa: E402
from kfp.local.executor_output_utils import pb2_struct_to_python  # noqa: E402
from kfp.local.io import IOStore  # noqa: E402
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils  # noqa: E402
from kfp.local.utils import struct_to_executor_spec  # noqa: E402
from kfp.pipeline_spec import pipeline_spec_pb2  # noqa: E402

__all__ = [
    "VERSION",
    "ArtifactMissingError",
    "IOStore",
    "LocalCache",
    "OrchestratorUtils",
    "PythonComponent",
    "ServiceAccountTokenVolumeCredentials",
    "executor_input_utils",
    "local_cache",
    "pb2_struct_to_python",
    "pipeline_spec_pb2",
    "placeholder_utils",
    "require_version",
    "rest_client",
    "set_namespace",
    "status",
    "struct_to_executor_spec",
    "subprocess_task_handler",
]

ArtifactMissingError = _MissingArtifactError


def set_namespace(client: kfp.Client, namespace: str) -> None:
    """Set the namespace of a client's requests.

    Without it, the client uses the namespace that was last used on this machine.
    """
    client._context_setting = {"namespace": namespace}


def rest_client(client: kfp.Client) -> Any:
    """Return the generated client below `kfp.Client`, which has its address and credentials."""
    return client._healthz_api.api_client
