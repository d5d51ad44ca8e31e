"""The applications of a host in a topology file.

::

    hosts:
      server:
        applications:
          echo:
            command: [python, -m, nodes.apps.echo_server]    # or one text, split as a shell would
            environment: {COLOUR: blue}
            after: [client.sender]
            restart: on-failure                              # or never, which is the default
"""

import difflib
import re
import shlex
from collections.abc import Callable

import yaml

from fabric.topology.checker import NAME, Checker
from fabric.topology.spec import RESTARTS, ApplicationSpec

APPLICATIONS_MAX = 64
KEYS = ("command", "environment", "after", "restart")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")


class ApplicationChecker:
    """Reads the applications of all hosts, then checks what they say of each other."""

    def __init__(self, check: Checker) -> None:
        self._check = check
        self._known: dict[str, ApplicationSpec] = {}
        self._references: list[tuple[str, str, yaml.Node]] = []
        """(application, the one it comes after, where that is written)."""

    def read(self, host: str, node: yaml.Node) -> tuple[ApplicationSpec, ...]:
        """The applications of one host, in the file's order."""
        check, place = self._check, f"hosts.{host}.applications"
        found = check.mapping(node, place, None)
        if len(found) > APPLICATIONS_MAX:
            check.error(node, place, f"more than {APPLICATIONS_MAX} applications on one host")
        specs = []
        for name, (name_node, value) in found.items():
            key = f"{place}.{name}"
            if not NAME.match(name):
                check.error(name_node, key, "no name: a lower-case letter, then up to 31 letters, digits, hyphens")
            keys = check.mapping(value, key, KEYS)
            command: tuple[str, ...] = ()
            if "command" in keys:
                command = self._command(keys["command"][1], f"{key}.command")
            else:
                check.error(name_node, f"{key}.command", "missing: what shall run?")
            environment = (
                self._environment(keys["environment"][1], f"{key}.environment") if "environment" in keys else {}
            )
            restart = check.value(keys["restart"][1], f"{key}.restart", _restart) if "restart" in keys else "never"
            after = self._after(f"{host}.{name}", keys["after"][1], f"{key}.after") if "after" in keys else ()
            spec = ApplicationSpec(name, command, environment, after, str(restart))
            self._known[f"{host}.{name}"] = spec
            specs.append(spec)
        return tuple(specs)

    def check_references(self, nodes: list[str]) -> None:
        """Once all hosts are read: names that exist, no circle, and no clash with the services of nodes."""
        for application, other, node in self._references:
            if other not in self._known:
                close = difflib.get_close_matches(other, self._known, 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                self._check.error(node, f"{application}: after", f"there is no application {other!r}{hint}")
            elif application in self._all_before(other):
                self._check.error(node, f"{application}: after", f"{other!r} comes after this one itself")
        for name in self._known:
            service = name.replace(".", "-")
            if service in nodes:
                self._check.error(
                    None, name, f"a node is named {service!r}, as the container of this application would be"
                )

    def _all_before(self, application: str) -> set[str]:
        found, waiting = set[str](), [application]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += (
                    [other for other in self._known[name].after if other in self._known] if name in self._known else []
                )
        return found

    def _command(self, node: yaml.Node, key: str) -> tuple[str, ...]:
        parts = self._texts(node, key) if isinstance(node, yaml.SequenceNode) else None
        if parts is None:
            parts = list(self._check.value(node, key, _split) or ())
        if not parts or not parts[0]:
            self._check.error(node, key, "expected a program and its arguments, for example [python, app.py]")
        return tuple(parts)

    def _environment(self, node: yaml.Node, key: str) -> dict[str, str]:
        found = {}
        for name, (name_node, value) in self._check.mapping(node, key, None).items():
            if not _VARIABLE.match(name):
                self._check.error(name_node, f"{key}.{name}", "no name of a variable: letters, digits and underscores")
            found[name] = self._check.scalar(value, f"{key}.{name}") or ""
        return found

    def _after(self, application: str, node: yaml.Node, key: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self._check.error(node, key, "expected a list of HOST.APPLICATION")
            return ()
        texts = self._texts(node, key)
        self._references += [(application, text, entry) for text, entry in zip(texts, node.value, strict=True)]
        return tuple(texts)

    def _texts(self, node: yaml.SequenceNode, key: str) -> list[str]:
        return [self._check.scalar(entry, key) or "" for entry in node.value]


def _restart(text: str) -> str:
    if text not in RESTARTS:
        raise ValueError(f"{text!r} is not one of {', '.join(RESTARTS)}")
    return text


_split: Callable[[str], list[str]] = shlex.split
