"""Plain YAML: no aliases, no tags, no duplicate keys, and the line of every field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from shardline.repository.layout import shown

if TYPE_CHECKING:
    from shardline.repository.config_mapping import FieldPath


class BadYaml(Exception):
    """Text that is not plain YAML. line: where, from 1; 0 when it is not known."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(" ".join(reason.split())[:400])
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML document: its content, and the nodes that know the lines."""

    content: Any
    root: Any

    def line_of(self, path: FieldPath) -> int:
        """The line (from 1) of the field at `path`, or of the nearest one above it that the text has; 0 if none."""
        node, line = self.root, 0
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


def load(text: str) -> Document:
    """Parse one document; an empty one is an empty mapping. Raises BadYaml, RecursionError."""
    try:
        root = yaml.compose(text, Loader=_PlainLoader)
        content = {} if root is None else _PlainLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadYaml(error.problem or str(error), mark.line + 1 if mark else 0) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise BadYaml(f"not YAML: {error}") from error
    return Document(content, root)


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        # A few bytes of aliases expand to gigabytes ("billion laughs"); a config has no need of them.
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not accepted", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_plain_mapping(self, node: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key.start_mark)
            if key.value in found:
                problem = f"the key {shown(key.value)} stands here twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            found[key.value] = self.construct_object(value, deep=True)
        return found


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _PlainLoader.construct_plain_mapping)


def _child(node: Any, part: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None
