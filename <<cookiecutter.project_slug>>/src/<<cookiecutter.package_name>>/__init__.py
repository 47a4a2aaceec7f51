"""Data, features, training, registry and model server of one machine-learning system."""

import os

# ONNX Runtime reports its use to its makers unless this is set before its first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
