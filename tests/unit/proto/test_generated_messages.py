"""The generated messages are fresh, live beside other stubs, and have the protocol's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tritonclient.grpc import model_config_pb2 as their_config
from tritonclient.grpc import service_pb2 as theirs

from shardline import pb
from shardline.pb.inference import grpc_service_pb2 as ours
from shardline.pb.inference import model_config_pb2 as our_config
from tools import generate_proto

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

FILES = [
    pytest.param(ours.DESCRIPTOR, theirs.DESCRIPTOR, id="grpc_service"),
    pytest.param(our_config.DESCRIPTOR, their_config.DESCRIPTOR, id="model_config"),
]


def describe_field(field: FieldDescriptor) -> tuple[object, ...]:
    """All of a field that travels on the wire or in JSON: name, number, type, repetition, oneof, target."""
    target = field.message_type or field.enum_type
    group = field.containing_oneof.name if field.containing_oneof else None
    return (field.name, field.number, field.type, field.is_repeated, group, target.full_name if target else None)


def describe_messages(messages: Mapping[str, Descriptor]) -> dict[str, object]:
    """Fields and enum values by full name, nested messages included."""
    found: dict[str, object] = {}
    for message in messages.values():
        found[message.full_name] = sorted(map(describe_field, message.fields), key=repr)
        found |= describe_enums(message.enum_types_by_name)
        found |= describe_messages(message.nested_types_by_name)
    return found


def describe_enums(enums: Mapping[str, EnumDescriptor]) -> dict[str, object]:
    """Enum values by full name."""
    return {enum.full_name: [(value.name, value.number) for value in enum.values] for enum in enums.values()}


def describe_methods(file: FileDescriptor) -> dict[str, tuple[str, str, bool, bool]]:
    """Each method's input, output and which sides stream, by full name."""
    return {
        method.full_name: (
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_regenerating_gives_the_committed_files(tmp_path: Path) -> None:
    generate_proto.generate(tmp_path)
    assert generate_proto.differences(tmp_path, generate_proto.PACKAGE) == []


@pytest.mark.parametrize(("mine", "judge"), FILES)
def test_messages_have_the_names_numbers_and_types_that_tritonclient_has(
    mine: FileDescriptor, judge: FileDescriptor
) -> None:
    assert describe_messages(mine.message_types_by_name) == describe_messages(judge.message_types_by_name)
    assert describe_enums(mine.enum_types_by_name) == describe_enums(judge.enum_types_by_name)


def test_the_service_has_the_methods_that_tritonclient_has() -> None:
    assert describe_methods(ours.DESCRIPTOR) == describe_methods(theirs.DESCRIPTOR)
    assert len(describe_methods(ours.DESCRIPTOR)) >= 20


def test_our_messages_and_another_clients_live_in_one_process() -> None:
    request = ours.ModelInferRequest(model_name="digits", id="7", raw_input_contents=[b"\x00\x01"])
    request.parameters["priority"].int64_param = 3
    copy = theirs.ModelInferRequest.FromString(request.SerializeToString())
    assert (copy.model_name, copy.id, copy.raw_input_contents[0]) == ("digits", "7", b"\x00\x01")
    assert ours.ModelInferRequest.FromString(copy.SerializeToString()) == request


def test_our_messages_stay_out_of_the_process_wide_pool() -> None:
    assert ours.DESCRIPTOR.pool is pb.POOL
    assert pb.POOL.FindMessageTypeByName("inference.ModelConfig") is our_config.ModelConfig.DESCRIPTOR
    assert theirs.DESCRIPTOR.pool is not pb.POOL


def test_an_import_from_outside_the_protos_is_refused() -> None:
    with pytest.raises(RuntimeError, match="another pool"):
        generate_proto.rewrite("from google.protobuf import duration_pb2 as x\n")
