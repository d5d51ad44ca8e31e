"""Collects mistakes in a YAML file with their places, so that a file is told all that is wrong with it at once."""

import difflib
import re
from typing import Any

import yaml

NAME = re.compile(r"^[a-z][a-z0-9-]{0,31}\Z")
"""What a topology, host, network switch, application or lab may be called."""
RESERVED = ("keys", "control", "public")
"""Services, secrets and configs of a lab of containers that are no nodes."""


class Checker:
    """Collects mistakes with their places."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.lines, self.errors = path, text.splitlines(), list[str]()

    def error(self, node: yaml.Node | None, key: str, message: str) -> None:
        line, column = (node.start_mark.line, node.start_mark.column) if node is not None else (0, 0)
        source = self.lines[line] if line < len(self.lines) else ""
        place = f"{self.path}:{line + 1}:{column + 1}"
        self.errors.append(f"{place}: {key}: {message}\n  {line + 1:5} | {source}\n        | {' ' * column}^")

    def mapping(
        self, node: yaml.Node | None, key: str, known: tuple[str, ...] | None
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> (key node, value node); unknown and double keys are mistakes."""
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null")):
            return found
        if not isinstance(node, yaml.MappingNode):
            self.error(node, key, "expected a mapping of keys to values")
            return found
        for name_node, value in node.value:
            name = str(name_node.value)
            full = f"{key}.{name}" if key else name
            if name in found:
                self.error(name_node, full, "the key stands here a second time")
            elif known is not None and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
                self.error(name_node, full, f"unknown key ({hint})")
            else:
                found[name] = (name_node, value)
        return found

    def scalar(self, node: yaml.Node, key: str) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self.error(node, key, "expected a single value")
        return None

    def value(self, node: yaml.Node, key: str, parse: Any) -> Any:
        text = self.scalar(node, key)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.error(node, key, str(error))
            return None
