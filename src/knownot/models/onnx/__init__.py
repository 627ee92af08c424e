"""The adapter for ONNX classifiers."""

from .adapter import OnnxModel, opened

__all__ = ["OnnxModel", "opened"]
