"""Names of the forms in which a bundle holds its model."""

TRANSFORMERS = "transformers"  # always there: the others are compared with it
ONNX = "onnx"
FORMATS = (TRANSFORMERS, ONNX)
