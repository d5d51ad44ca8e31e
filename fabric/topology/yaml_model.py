"""The topology file: its model, and ``load``, which reports all mistakes at once with line, column and caret."""

import difflib
import re
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from fabric.errors import UsageError
from fabric.ids import NodeName
from fabric.link import LinkSettings
from fabric.topology.spec import HostSpec, LinkSpec, NetworkSwitchSpec, Topology
from fabric.topology.yaml_text import Document, Location, parse
from fabric.units import parse_duration, parse_rate, parse_ratio

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
_QUANTITY = WithJsonSchema({"type": ["string", "number"]})
Duration = Annotated[int, BeforeValidator(lambda v: parse_duration(str(v))), _QUANTITY]
Ratio = Annotated[float, BeforeValidator(lambda v: parse_ratio(str(v))), _QUANTITY]
Rate = Annotated[int, BeforeValidator(lambda v: parse_rate(str(v))), _QUANTITY]
_SETTINGS = ("latency", "jitter", "loss", "rate", "queue")
_NothingIsEmpty = BeforeValidator(lambda v: {} if v is None else v)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Settings(_Model):
    latency: Duration = 0
    jitter: Duration = 0
    loss: Ratio = 0.0
    rate: Rate | None = None
    queue: int = Field(default=1000, ge=0, le=1_000_000)


class _Link(_Settings):
    endpoints: list[str] = Field(min_length=2, max_length=2)
    forward: _Settings = Field(default_factory=_Settings)
    reverse: _Settings = Field(default_factory=_Settings)


class _Defaults(_Model):
    link: _Settings = Field(default_factory=_Settings)


class _Host(_Model):
    ip: str | None = None


class _NetworkSwitch(_Model):
    pass


class _File(_Model):
    name: str
    seed: int = Field(default=1, ge=0, lt=2**63)
    defaults: Annotated[_Defaults, _NothingIsEmpty] = Field(default_factory=_Defaults)
    hosts: dict[str, Annotated[_Host, _NothingIsEmpty]]
    network_switches: dict[str, Annotated[_NetworkSwitch, _NothingIsEmpty]] = Field(
        default_factory=dict, alias="network-switches"
    )
    links: list[_Link]


_KEYS = (*_File.model_fields, "network-switches", *_Link.model_fields, "ip", "link")


def schema() -> dict[str, Any]:
    """The JSON Schema of a topology file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_File.model_json_schema(by_alias=True)}


def load(path: Path) -> Topology:
    """Read a topology file; UsageError lists everything that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    return loads(text, str(path))


def loads(text: str, name: str = "topology.yaml") -> Topology:
    """As :func:`load`, from text; ``name`` stands in messages."""
    document = parse(text)
    topology: Topology | None = None
    if not document.problems:
        try:
            topology = _build(_File.model_validate(document.value), document)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                _add(document, item["loc"], _message(item["type"], item["msg"], item["loc"], document))
    if document.problems or topology is None:
        raise UsageError("\n".join(_render(name, document)))
    return topology


def _message(kind: str, message: str, at: Location, document: Document) -> str:
    if kind == "extra_forbidden":
        return "unknown key" + _suggest(str(at[-1]), [key for key in _KEYS if (*at[:-1], key) not in document.keys])
    if kind == "missing":
        return "this key is missing"
    if kind == "model_type":
        return "a mapping (key: value) is expected here"
    return message.removeprefix("Value error, ")


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _add(document: Document, at: Location, message: str) -> None:
    where, exact = at, message.startswith("unknown key")
    while where and where not in document.values:
        where = where[:-1]
    table = document.keys if exact else document.values
    document.problems.append((table.get(where, document.values.get(where, (1, 1))), at, message))


def _render(name: str, document: Document) -> list[str]:
    out: list[str] = []
    for (line, column), at, message in sorted(document.problems, key=lambda problem: problem[0])[:50]:
        path = ".".join(map(str, at))
        out.append(f"{name}:{line}:{column}: {path + ': ' if path else ''}{message}")
        if line <= len(document.lines):
            out += [f"    {document.lines[line - 1]}", " " * (column + 3) + "^"]
    return out


def _settings(*layers: _Settings) -> LinkSettings:
    values: dict[str, Any] = {}
    for layer in layers:
        values |= {key: getattr(layer, key) for key in _SETTINGS if key in layer.model_fields_set}
    return LinkSettings(**values)


def _build(file: _File, document: Document) -> Topology:
    hosts: dict[NodeName, HostSpec] = {}
    given: dict[str, str] = {}
    for name, host in file.hosts.items():
        at: Location = ("hosts", name)
        if host.ip is not None:
            try:
                address = IPv4Address(host.ip)
                if address.is_multicast or address.is_unspecified:
                    raise ValueError(f"{host.ip} cannot be a host's address")
            except ValueError as error:
                _add(document, (*at, "ip"), str(error))
            if host.ip in given:
                _add(document, (*at, "ip"), f"{host.ip} is {given[host.ip]}'s address already")
            given[host.ip] = name
    number = 0
    for name, host in file.hosts.items():
        ip = host.ip
        while ip is None:
            number += 1
            candidate = str(IPv4Address((10 << 24) + (77 << 16) + number))
            ip = candidate if candidate not in given else None
        hosts[NodeName(name)] = HostSpec(NodeName(name), ip)
    for section, names in (("hosts", file.hosts), ("network-switches", file.network_switches)):
        for name in names:
            if not _NAME.match(name):
                _add(document, (section, name), "a name is a-z, then up to 30 of a-z, 0-9 and -")
            if section != "hosts" and name in file.hosts:
                _add(document, (section, name), "a host has this name already")
    links = _links(file, document)
    _check_reach(file, document)
    network_switches = {NodeName(n): NetworkSwitchSpec(NodeName(n)) for n in file.network_switches}
    return Topology(file.name, file.seed, hosts, network_switches, links)


def _links(file: _File, document: Document) -> tuple[LinkSpec, ...]:
    known = [*file.hosts, *file.network_switches]
    links: list[LinkSpec] = []
    seen: dict[tuple[str, ...], int] = {}
    for index, link in enumerate(file.links):
        for end, name in enumerate(link.endpoints):
            if name not in known:
                _add(document, ("links", index, "endpoints", end), f"no node is named {name!r}{_suggest(name, known)}")
        a, b = link.endpoints
        if a == b:
            _add(document, ("links", index, "endpoints"), f"a link from {a} to itself")
        pair = tuple(sorted(link.endpoints))
        if pair in seen:
            _add(document, ("links", index, "endpoints"), f"links[{seen[pair]}] joins {a} and {b} already")
        seen[pair] = index
        base = (file.defaults.link, link)
        forward, reverse = _settings(*base, link.forward), _settings(*base, link.reverse)
        links.append(LinkSpec(NodeName(a), NodeName(b), forward, reverse))
    return tuple(links)


def _check_reach(file: _File, document: Document) -> None:
    """Each host has one link, and every host reaches the first one."""
    beside: dict[str, list[str]] = {name: [] for name in (*file.hosts, *file.network_switches)}
    for link in file.links:
        a, b = link.endpoints
        if a in beside and b in beside:
            beside[a].append(b)
            beside[b].append(a)
    for host in file.hosts:
        if len(beside[host]) != 1:
            _add(document, ("hosts", host), f"a host has exactly one link; {host} has {len(beside[host])}")
    reached = dict.fromkeys(list(file.hosts)[:1])
    pending = list(reached)
    while pending:
        for name in beside[pending.pop()]:
            if name not in reached:
                reached[name] = None
                pending.append(name)
    for host in file.hosts:
        if host not in reached and beside[host]:
            _add(document, ("hosts", host), f"{host} cannot reach {next(iter(file.hosts))}")
