"""The parts of KServe's SDK that the server is built from.

Its `ModelServer` is not among them: at SIGTERM it unloads the model while requests wait for it, it
opens routes that load and unload models for everybody, reads a body of any size, and answers many
malformed requests with 500. What makes the protocol is used: the data plane, the routes of v2, the
gRPC service, and the tensors.
"""

import sys
from unittest import mock

# kserve parses the arguments of the process when it is imported, which are none of its own here.
with mock.patch.object(sys, "argv", sys.argv[:1]):
    from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelRepository
    from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ServerNotReady
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
        add_GRPCInferenceServiceServicer_to_server as add_service,
    )
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import RequestedOutput
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
