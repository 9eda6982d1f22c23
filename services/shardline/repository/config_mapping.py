"""A mapping (from YAML or JSON) into a protobuf message, with errors that name the field.

protobuf's own json_format does the conversion; it is asked field by field, since its errors for a whole message
name neither the line nor, often, the field.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor

from shardline.repository.layout import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

FieldPath = tuple[str | int, ...]
"""Keys and list positions from the top: ("input", 0, "dims")."""

_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: "a whole number (32 bits)",
    FieldDescriptor.CPPTYPE_INT64: "a whole number (64 bits)",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number from 0 (32 bits)",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number from 0 (64 bits)",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "text (in quotes)",
}


class BadField(Exception):
    """A field of the mapping is unknown or of the wrong kind. path: where it stands."""

    def __init__(self, path: FieldPath, reason: str) -> None:
        super().__init__(f"{one_line(written(path))[:400]}: {reason}" if path else reason)
        self.path = path


def fill(message: Message, content: Any) -> None:
    """Set the message's fields from a mapping (protobuf's JSON mapping; names in snake_case or camelCase).

    Raises BadField, naming the first field that does not fit.
    """
    _check_message(message.DESCRIPTOR, content, ())
    try:
        json_format.ParseDict(content, message)
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise BadField((), " ".join(str(error).split())[:400]) from error


def written(path: FieldPath) -> str:
    """A path as people write it.

    >>> written(("input", 0, "dims"))
    'input[0].dims'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the known name that is nearest, or nothing."""
    near = get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _check_message(descriptor: Any, content: Any, path: FieldPath) -> None:
    if not isinstance(content, dict):
        raise BadField(path, f"{_kind(content)} where a mapping of fields is expected")
    names = {field.name: field for field in descriptor.fields} | {f.json_name: f for f in descriptor.fields}
    for key, value in content.items():
        if key not in names:
            raise BadField((*path, key), f"no such field{nearest(key, (field.name for field in descriptor.fields))}")
        _check_field(names[key], value, (*path, key))


def _check_field(field: Any, value: Any, path: FieldPath) -> None:
    inner = field.message_type
    if value is None:
        return
    if inner is not None and inner.GetOptions().map_entry:
        _check_map(field, value, path)
    elif not field.is_repeated:
        _check_one(field, value, path)
    elif not isinstance(value, list):
        raise BadField(path, f"{_kind(value)} where a list is expected")
    else:
        for index, item in enumerate(value):
            _check_one(field, item, (*path, index))


def _check_map(field: Any, value: Any, path: FieldPath) -> None:
    if not isinstance(value, dict):
        raise BadField(path, f"{_kind(value)} where a mapping is expected")
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for key, item in value.items():
        if not _fits(field, {key: item if value_field.message_type is None else {}}):
            _check_one(value_field, item, (*path, key))
            raise BadField((*path, key), f"the key is not {_NUMBERS.get(key_field.cpp_type, 'valid')}")
        _check_one(value_field, item, (*path, key))


def _check_one(field: Any, value: Any, path: FieldPath) -> None:
    if field.message_type is not None:
        _check_message(field.message_type, value, path)
    elif not _fits(field, [value] if field.is_repeated else value):
        raise BadField(path, f"{_value(value)} is not {_expected(field)}")


def _fits(field: Any, value: Any) -> bool:
    message = message_factory.GetMessageClass(field.containing_type)()
    try:
        json_format.ParseDict({field.name: value}, message)
    except (json_format.ParseError, ValueError, TypeError, AttributeError):
        return False
    return True


def _expected(field: Any) -> str:
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    return _NUMBERS.get(field.cpp_type, "valid here")


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else _value(value)


def _value(value: Any) -> str:
    return shown(value) if isinstance(value, str) else shown(str(value)).strip("'\"")
