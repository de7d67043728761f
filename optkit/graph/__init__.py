"""The ONNX graph: exported, cleaned, audited, and run as it is written."""
