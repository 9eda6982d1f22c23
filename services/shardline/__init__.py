"""Shardline: a gRPC model-serving cluster. DESIGN: docs/architecture.md."""

__version__ = "0.1.0"
