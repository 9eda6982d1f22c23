"""Builders, one module a model: `build()` returns an onnx.ModelProto, the same one every time."""
