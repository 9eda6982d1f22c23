"""A model's config from text: config.pbtxt, config.yaml or the JSON that a client sends, into one message.

Errors are ModelRejected and begin with the source, the line where it is known, and the field.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from shardline.core.errors import ModelRejected
from shardline.pb.inference import model_config_pb2
from shardline.repository import config_mapping, config_yaml
from shardline.repository.layout import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.protobuf.message import Message

MAX_CONFIG_BYTES = 1 << 17
_OVERRIDE = "config of the load request"


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """A config as written.

    source: where it came from, as errors name it. max_batch_size_given: whether the text has the field at all;
    the message alone cannot tell 0 from absent.
    """

    message: model_config_pb2.ModelConfig
    source: str
    max_batch_size_given: bool


def no_config(source: str) -> ParsedConfig:
    """The config of a model that has none: every part is filled from the model."""
    return ParsedConfig(model_config_pb2.ModelConfig(), source, max_batch_size_given=False)


def read_config(path: Path, *, max_bytes: int = MAX_CONFIG_BYTES) -> ParsedConfig:
    """Parse a config file: `.pbtxt` as protobuf text, else as YAML. Raises ModelRejected."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelRejected(f"{path}: cannot be read: {error.strerror or error}") from error
    text = _decode(content, str(path), max_bytes)
    return _parse(text, str(path), _from_pbtxt if path.suffix == ".pbtxt" else _from_yaml)


def read_override(content: str | bytes, *, max_bytes: int = MAX_CONFIG_BYTES) -> ParsedConfig:
    """Parse a config that came with a load request: JSON (it begins with a brace) or protobuf text.

    Raises ModelRejected.
    """
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    text = _decode(data, _OVERRIDE, max_bytes)
    return _parse(text, _OVERRIDE, _from_json if text.lstrip().startswith(("{", "[")) else _from_pbtxt)


def _decode(content: bytes, source: str, max_bytes: int) -> str:
    if len(content) > max_bytes:
        raise ModelRejected(f"{source}: larger than the limit of {max_bytes} bytes (max_config_bytes)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelRejected(f"{source}: not UTF-8 text at byte {error.start}") from error


def _parse(text: str, source: str, form: Callable[[str, str, Message], None]) -> ParsedConfig:
    draft = _DRAFT()
    try:
        form(text, source, draft)
    except RecursionError as error:
        raise ModelRejected(f"{source}: nested too deeply") from error
    message = model_config_pb2.ModelConfig.FromString(draft.SerializeToString(deterministic=True))
    return ParsedConfig(message, source, max_batch_size_given=draft.HasField("max_batch_size"))


def _from_pbtxt(text: str, source: str, draft: Message) -> None:
    try:
        text_format.Parse(text, draft)
    except text_format.ParseError as error:
        reason = " ".join(re.sub(r"^\d+:\d+ : ", "", str(error)).split())[:400]
        raise ModelRejected(f"{_at(source, error.GetLine())}: {reason}{_did_you_mean(reason)}") from error
    except (UnicodeError, ValueError) as error:
        raise ModelRejected(f"{source}: {' '.join(str(error).split())[:400]}") from error


def _from_json(text: str, source: str, draft: Message) -> None:
    try:
        config_mapping.fill(draft, json.loads(text, object_pairs_hook=_unique_pairs))
    except json.JSONDecodeError as error:
        raise ModelRejected(f"{_at(source, error.lineno)}: not JSON: {error.msg}") from error
    except (config_mapping.BadField, ValueError) as error:
        raise ModelRejected(f"{source}: {one_line(str(error))}") from error


def _from_yaml(text: str, source: str, draft: Message) -> None:
    try:
        document = config_yaml.load(text)
    except config_yaml.BadYaml as error:
        raise ModelRejected(f"{_at(source, error.line)}: {error}") from error
    try:
        config_mapping.fill(draft, document.content)
    except config_mapping.BadField as error:
        raise ModelRejected(f"{_at(source, document.line_of(error.path))}: {error}") from error


def _at(source: str, line: int | None) -> str:
    return f"{source}:{line}" if line else source


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {shown(name)} stands in one object twice")
        found[name] = value
    return found


def _did_you_mean(reason: str) -> str:
    """A suggestion for the text parser's complaint about an unknown field of a message that it names."""
    found = re.search(r"Message type \"([\w.]+)\" has no field named \"(\w+)\"", reason)
    if not found:
        return ""
    message = _DRAFT.DESCRIPTOR.file.pool.FindMessageTypeByName(found.group(1))
    return config_mapping.nearest(found.group(2), (field.name for field in message.fields))


def _draft_class() -> Any:
    """ModelConfig with a max_batch_size that knows whether it was set, made from the same description.

    proto3 keeps no presence for plain numbers, and a config that says 0 means something else than one that is silent.
    """
    file = descriptor_pb2.FileDescriptorProto()
    model_config_pb2.DESCRIPTOR.CopyToProto(file)
    config = next(message for message in file.message_type if message.name == "ModelConfig")
    field = next(field for field in config.field if field.name == "max_batch_size")
    field.proto3_optional = True
    field.oneof_index = len(config.oneof_decl)
    config.oneof_decl.add(name="_max_batch_size")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


_DRAFT = _draft_class()
