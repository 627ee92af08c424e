"""The open-set classifier as one ONNX file, and what is read from it."""
