"""Names of the forms in which a bundle holds its model."""

TRANSFORMERS = "transformers"  # always there: the others are compared with it
ONNX, ONNX_INT8 = "onnx", "onnx_int8"
FORMATS = (TRANSFORMERS, ONNX, ONNX_INT8)  # that an export writes
DEFAULT_FORMATS = (TRANSFORMERS, ONNX)
