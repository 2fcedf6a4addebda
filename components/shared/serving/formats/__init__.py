"""Further forms of a bundle's model, which run without torch."""

import os

from components.shared.contracts.environment import Variable

# onnxruntime's wheels write a file and send usage data when they are imported, unless this is set.
os.environ[Variable.ORT_NO_TELEMETRY] = "1"
