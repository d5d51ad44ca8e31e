"""Topology files: YAML with positions, checked as a whole; every mistake is reported at once with file, line and
column.

The model is small and fixed, so it is checked here, next to the marks that PyYAML gives, rather than in a second pass.
"""

import difflib
import ipaddress
import re
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fabric.errors import UsageError
from fabric.link.settings import LinkSettings
from fabric.topology.applications import ApplicationChecker
from fabric.topology.checker import NAME, RESERVED, Checker
from fabric.topology.spec import (
    SOCKETS_MAX,
    SOCKETS_PER_PROCESS_MAX,
    HostSpec,
    LinkSpec,
    NetworkSwitchSpec,
    Topology,
)
from fabric.units import parse_duration, parse_rate, parse_ratio

NODES_MAX = 10_000
FILE_MAX = 4 << 20
_TOP = ("name", "seed", "defaults", "hosts", "network-switches", "links")
_HOST = ("ip", "applications", "sockets", "sockets-per-process")
_SETTINGS = ("latency", "jitter", "loss", "rate", "queue")
_FIRST_ADDRESS = int(ipaddress.IPv4Address("10.77.0.1"))


def load(path: Path) -> Topology:
    """The topology in a file; UsageError lists everything that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, str(path))


def parse(text: str, path: str) -> Topology:
    """The topology in a text; ``path`` is for messages."""
    if len(text) > FILE_MAX:
        raise UsageError(f"{path}: longer than {FILE_MAX} characters")
    if re.search(r"(^|[\s\[{,])[&*][A-Za-z0-9]", text):
        raise UsageError(f"{path}: anchors and aliases (& and *) are not supported in topology files")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise UsageError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from None
    checker = Checker(path, text)
    topology = _topology(checker, root)
    if checker.errors:
        raise UsageError("\n".join(checker.errors))
    assert topology is not None
    return topology


def _topology(check: Checker, root: yaml.Node | None) -> Topology | None:
    top = check.mapping(root, "", _TOP)
    if "name" not in top:
        check.error(root, "name", "missing: the topology needs a name")
    name = check.value(top["name"][1], "name", _name) if "name" in top else ""
    seed = check.value(top["seed"][1], "seed", _integer) if "seed" in top else 1
    defaults = check.mapping(top["defaults"][1], "defaults", ("link",)) if "defaults" in top else {}
    base = _settings(check, defaults["link"][1], "defaults.link", {}) if "link" in defaults else {}
    applications = ApplicationChecker(check)
    hosts = _hosts(check, top.get("hosts"), applications)
    network_switches = _names(check, top.get("network-switches"), "network-switches", ())
    for both in [s for s in network_switches if s in hosts]:
        check.error(network_switches[both][0], f"network-switches.{both}", "a host has this name already")
    applications.check_references([*hosts, *network_switches])
    links = _links(check, top.get("links"), base, [*hosts, *network_switches])
    if check.errors:
        return None
    _connected(check, root, list(hosts), list(network_switches), links)
    specs = {s: NetworkSwitchSpec(s) for s in network_switches}
    return Topology(str(name), int(seed or 0), hosts, specs, tuple(links))


def _name(text: str) -> str:
    if not NAME.match(text):
        raise ValueError(f"{text!r} is no name: a lower-case letter, then up to 31 letters, digits and hyphens")
    return text


def _integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise ValueError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _quota(most: int, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or not 1 <= int(text) <= most:
        raise ValueError(f"{text!r} is not a whole number from 1 to {most}")
    return int(text)


def _names(check: Checker, entry: Any, key: str, known: tuple[str, ...]) -> dict[str, tuple[yaml.Node, dict[str, Any]]]:
    found: dict[str, tuple[yaml.Node, dict[str, Any]]] = {}
    for name, (node, value) in check.mapping(entry[1] if entry else None, key, None).items():
        if not NAME.match(name):
            check.error(node, f"{key}.{name}", "no name: a lower-case letter, then up to 31 letters, digits, hyphens")
        if name in RESERVED:
            check.error(node, f"{key}.{name}", "containers of a lab have this name for what is no node; use another")
        found[name] = (node, check.mapping(value, f"{key}.{name}", known))
    if len(found) > NODES_MAX:
        check.error(entry[0], key, f"more than {NODES_MAX} nodes")
    return found


def _hosts(check: Checker, entry: Any, applications: ApplicationChecker) -> dict[str, HostSpec]:
    hosts: dict[str, HostSpec] = {}
    taken: dict[str, str] = {}
    for number, (name, (node, keys)) in enumerate(_names(check, entry, "hosts", _HOST).items()):
        ip = str(ipaddress.IPv4Address(_FIRST_ADDRESS + number))
        if "ip" in keys:
            node = keys["ip"][1]
            ip = check.value(node, f"hosts.{name}.ip", lambda text: str(ipaddress.IPv4Address(text))) or ip
        if ip in taken:
            check.error(node, f"hosts.{name}.ip", f"{ip} is the address of {taken[ip]!r} already")
        taken[ip] = name
        programs = applications.read(name, keys["applications"][1]) if "applications" in keys else ()
        quotas = [
            check.value(keys[key][1], f"hosts.{name}.{key}", partial(_quota, most)) if key in keys else None
            for key, most in (("sockets", SOCKETS_MAX), ("sockets-per-process", SOCKETS_PER_PROCESS_MAX))
        ]
        hosts[name] = HostSpec(name, ip, programs, *quotas)
    if not hosts:
        check.error(entry[0] if entry else None, "hosts", "missing: a topology has at least one host")
    return hosts


def _settings(check: Checker, node: yaml.Node, key: str, base: dict[str, Any], *more: str) -> dict[str, Any]:
    parsers = {
        "latency": parse_duration,
        "jitter": parse_duration,
        "loss": parse_ratio,
        "rate": parse_rate,
        "queue": _integer,
    }
    settings = dict(base)
    for name, (_, value) in check.mapping(node, key, (*_SETTINGS, *more)).items():
        if name in parsers:
            parsed = check.value(value, f"{key}.{name}", parsers[name])
            if parsed is not None:
                settings[name] = parsed
    return settings


def _links(check: Checker, entry: Any, base: dict[str, Any], nodes: list[str]) -> list[LinkSpec]:
    links: list[LinkSpec] = []
    sequence = entry[1] if entry else None
    if sequence is None or not isinstance(sequence, yaml.SequenceNode):
        check.error(sequence, "links", "expected a list of links")
        return links
    for number, node in enumerate(sequence.value):
        key = f"links[{number}]"
        keys = check.mapping(node, key, (*_SETTINGS, "endpoints", "forward", "reverse"))
        settings = _settings(check, node, key, base, "endpoints", "forward", "reverse") if keys else dict(base)
        check.errors = list(dict.fromkeys(check.errors))
        ends = _endpoints(check, keys.get("endpoints"), node, key, nodes)
        both = []
        for direction in ("forward", "reverse"):
            own = keys.get(direction)
            one = _settings(check, own[1], f"{key}.{direction}", settings) if own else settings
            try:
                both.append(LinkSettings(**one))
            except ValueError as error:
                check.error(node, key, str(error))
        if ends and len(both) == 2:
            if any({link.a, link.b} == set(ends) for link in links):
                check.error(node, key, f"{ends[0]} and {ends[1]} are linked already")
            links.append(LinkSpec(ends[0], ends[1], both[0], both[1]))
    return links


def _endpoints(check: Checker, entry: Any, link: yaml.Node, key: str, nodes: list[str]) -> tuple[str, str] | None:
    node = entry[1] if entry else link
    if entry is None or not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
        check.error(node, f"{key}.endpoints", "expected two node names, for example [client, s1]")
        return None
    names = [check.scalar(end, f"{key}.endpoints") for end in node.value]
    for end, name in zip(node.value, names, strict=True):
        if name is not None and name not in nodes:
            close = difflib.get_close_matches(name, nodes, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            check.error(end, f"{key}.endpoints", f"there is no node {name!r}{hint}")
            return None
    if names[0] == names[1] or None in names:
        check.error(node, f"{key}.endpoints", "a link joins two different nodes")
        return None
    return str(names[0]), str(names[1])


def _connected(check: Checker, root: Any, hosts: list[str], network_switches: list[str], links: list[LinkSpec]) -> None:
    """Every host has one link and reaches every other."""
    neighbours: dict[str, list[str]] = {name: [] for name in [*hosts, *network_switches]}
    for link in links:
        neighbours[link.a].append(link.b)
        neighbours[link.b].append(link.a)
    for host in hosts:
        if len(neighbours[host]) != 1:
            check.error(root, f"hosts.{host}", f"a host has exactly one link, this one has {len(neighbours[host])}")
    reached, waiting = {hosts[0]: None}, [hosts[0]]
    while waiting:
        for name in neighbours[waiting.pop()]:
            if name not in reached:
                reached[name] = None
                waiting.append(name)
    for host in [h for h in hosts if h not in reached]:
        check.error(root, f"hosts.{host}", f"not reachable from {hosts[0]!r}")
