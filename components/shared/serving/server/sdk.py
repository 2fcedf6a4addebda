"""The parts of KServe's SDK that the server is built from.

Its `ModelServer` is not among them: at SIGTERM it unloads the model while requests wait for it, it
opens routes that load and unload models for everybody, reads a body of any size, and answers many
malformed requests with 500. What makes the protocol is used: the data plane, the routes of v2, the
gRPC service, and the tensors.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from unittest import mock


@contextmanager
def _parts_alone() -> Iterator[None]:
    """Import kserve's modules in the block without the package's own, and without pandas.

    The package's own imports the client of Kubernetes, and two modules import pandas for data
    frames; both are 110 MB that no request uses. Those two modules keep the stand-in for pandas:
    `infer_type`'s `as_dataframe`, and the functions of `utils` that take or make data frames, fail
    in this process. Nothing here calls them. Whoever imports pandas or kserve afterwards gets the
    real ones.
    """
    found = find_spec("kserve")
    if found is None:
        raise ModuleNotFoundError("No module named 'kserve'", name="kserve")
    package, pandas = ModuleType("kserve"), ModuleType("pandas")
    package.__path__ = list(found.submodule_search_locations or ())
    pandas.DataFrame = type("DataFrame", (), {})  # type: ignore[attr-defined]

    missing = {
        name: module
        for name, module in (("kserve", package), ("pandas", pandas))
        if name not in sys.modules
    }
    sys.modules.update(missing)
    try:
        # kserve parses the arguments of the process when it is imported, which are none of its own.
        with mock.patch.object(sys, "argv", sys.argv[:1]):
            yield
    finally:
        for name in missing:
            del sys.modules[name]


with _parts_alone():
    from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ServerNotReady
    from kserve.model import Model
    from kserve.model_repository import ModelRepository
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
        add_GRPCInferenceServiceServicer_to_server as add_service,
    )
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import (
        InferInput,
        InferOutput,
        InferRequest,
        InferResponse,
        RequestedOutput,
    )
    from kserve.protocol.rest.v2_datamodels import InferenceRequest
    from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

__all__ = [
    "DataPlane",
    "InferInput",
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "InferenceError",
    "InferenceRequest",
    "InferenceServicer",
    "InvalidInput",
    "Model",
    "ModelNotFound",
    "ModelRepository",
    "RequestedOutput",
    "ServerNotReady",
    "add_service",
    "messages",
    "register_v2_endpoints",
]
