"""YAML text -> plain values plus where each of them stands. Scalars stay text (so ``no`` is a name, not a boolean)."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

Location: TypeAlias = tuple[str | int, ...]
Position: TypeAlias = tuple[int, int]
"""Line and column, counted from 1."""

MAX_TEXT = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 20


@dataclass(slots=True)
class Document:
    """A parsed file."""

    lines: list[str]
    value: Any = None
    values: dict[Location, Position] = field(default_factory=dict)
    keys: dict[Location, Position] = field(default_factory=dict)
    problems: list[tuple[Position, Location, str]] = field(default_factory=list)


def parse(text: str) -> Document:
    """Parse one document; what is wrong with it stands in ``problems`` (never raises for bad text)."""
    document = Document(text.splitlines() or [""])
    if len(text) > MAX_TEXT:
        document.problems.append(((1, 1), (), f"the file has more than {MAX_TEXT} characters"))
        return document
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.problems.append((position, (), error.problem or "this is not YAML"))
    except (yaml.YAMLError, ValueError) as error:
        document.problems.append(((1, 1), (), f"this is not YAML: {str(error).splitlines()[0]}"))
    except RecursionError:
        document.problems.append(((1, 1), (), "nested too deeply"))
    else:
        try:
            document.value = _convert(root, (), document)
        except _TooMuch as limit:
            document.problems.append(((1, 1), (), str(limit)))
    return document


class _TooMuch(Exception):
    pass


def _convert(node: yaml.Node | None, at: Location, document: Document) -> Any:
    if node is None:
        return None
    if len(at) > MAX_DEPTH:
        raise _TooMuch(f"nested more than {MAX_DEPTH} levels deep (an alias within itself?)")
    if len(document.values) >= MAX_VALUES:
        raise _TooMuch(f"more than {MAX_VALUES} values once aliases are written out")
    document.values[at] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*at, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                document.problems.append((position, at, "a key must be a plain word"))
                continue
            key = str(key_node.value)
            if key in result:
                first = document.keys[(*at, key)][0]
                document.problems.append((position, (*at, key), f"given twice; first on line {first}"))
                continue
            document.keys[(*at, key)] = position
            result[key] = _convert(value_node, (*at, key), document)
        return result
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return None if plain and node.value in ("", "~", "null") else str(node.value)
