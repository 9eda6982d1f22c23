"""Protobuf, gRPC and ZeroMQ: how bytes become values. Nothing above this package knows their formats."""
