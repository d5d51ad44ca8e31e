"""Changes of a running lab: link faults, partitions, and nodes that are frozen or killed. The same on every engine.

Links are named as a direction, ``client->s1``, as both directions, ``client-s1`` (or ``s1-client``), or by a node: all
its links, both ways.
"""

import signal
from typing import Any

from fabric.errors import EnvironmentLacks, UsageError
from fabric.units import parse_duration, parse_rate, parse_ratio
from nodes.lab import compose_engine, engines, leftovers, swarm_engine
from nodes.lab.records import LabRecord

UNITS = {"latency": "2ms", "jitter": "0.2ms", "loss": "0.5%", "rate": "1Gbit or none", "queue": "1000"}
"""Settings, with an example of each."""


def find_links(record: LabRecord, text: str) -> list[dict[str, str]]:
    """The link directions that ``text`` means; UsageError with those that there are."""
    found = [
        link
        for link in record.links
        if text
        in (
            link["name"],
            f"{link['source']}-{link['sink']}",
            f"{link['sink']}-{link['source']}",
            link["source"],
            link["sink"],
        )
    ]
    if not found:
        names = ", ".join(sorted({f"{x['source']}-{x['sink']}" for x in record.links}))
        raise UsageError(f"the lab {record.name} has no link {text!r}; it has {names}")
    return found


def parse_settings(texts: tuple[str, ...]) -> dict[str, Any]:
    """``latency=5ms loss=10%`` -> what :mod:`nodes.control.links` takes. UsageError names the setting."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or key not in UNITS:
            examples = " ".join(f"{key}={example}" for key, example in UNITS.items())
            raise UsageError(f"{text!r}: expected SETTING=VALUE, as {examples}")
        try:
            settings[key] = _value(key, value)
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from None
    return settings


def set_links(record: LabRecord, text: str, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Merge ``settings`` into what is set; link direction -> {before, after}."""
    return {link["name"]: _change(record, link, settings=settings) for link in find_links(record, text)}


def clear_links(record: LabRecord, text: str | None) -> dict[str, dict[str, Any]]:
    """Back to what the topology says, partitions included; all links unless ``text`` names some."""
    links = record.links if text is None else find_links(record, text)
    return {link["name"]: _change(record, link, restore=True) for link in links}


def list_links(record: LabRecord) -> dict[str, dict[str, Any]]:
    """Link direction -> {latency, ..., partition, original: {...}}."""
    found: dict[str, dict[str, Any]] = {}
    for node in record.nodes:
        found |= engines.ask(record, node, "links")
    return {link["name"]: found[link["name"]] for link in record.links}


def partition(
    record: LabRecord, group: list[str], others: list[str] | None, *, one_way: bool = False
) -> dict[str, dict[str, Any]]:
    """Cut every link between the two groups of nodes; ``others`` unless given are all the rest. With ``one_way`` only
    from the first group to the second.
    """
    for node in [*group, *(others or [])]:
        record.control_path(node)
    rest = [node for node in record.nodes if node not in group] if others is None else others
    if set(group) & set(rest):
        raise UsageError(f"partition: {', '.join(sorted(set(group) & set(rest)))} cannot be on both sides")
    links = [
        link
        for link in record.links
        if (link["source"] in group and link["sink"] in rest)
        or (not one_way and link["source"] in rest and link["sink"] in group)
    ]
    if not links:
        raise UsageError(f"partition: no link leads from {', '.join(group)} to {', '.join(rest)}")
    return {link["name"]: _change(record, link, partition=True) for link in links}


def heal(record: LabRecord) -> dict[str, dict[str, Any]]:
    """End every partition; other settings stay."""
    cut = [name for name, link in list_links(record).items() if link["partition"]]
    return {link["name"]: _change(record, link, partition=False) for link in record.links if link["name"] in cut}


def pause(record: LabRecord, node: str) -> None:
    """Freeze a node: a container with all that runs in it; of the process engine the node's own process."""
    if record.engine == "process":
        _signal(record, node, signal.SIGSTOP)
    else:
        (compose_engine if record.engine == "compose" else swarm_engine).pause(record, _known(record, node))


def resume(record: LabRecord, node: str) -> None:
    """Let it go on."""
    if record.engine == "process":
        _signal(record, node, signal.SIGCONT)
    else:
        (compose_engine if record.engine == "compose" else swarm_engine).resume(record, _known(record, node))


def kill(record: LabRecord, node: str) -> None:
    """SIGKILL for a node. On Swarm another task takes its place."""
    if record.engine == "process":
        _signal(record, node, signal.SIGKILL)
        process = record.nodes[node]
        leftovers.await_end([(process.pid, process.start_time)])
    else:
        (compose_engine if record.engine == "compose" else swarm_engine).kill(record, _known(record, node))


def _change(record: LabRecord, link: dict[str, str], **members: Any) -> dict[str, Any]:
    return engines.ask(record, link["source"], "link", link=link["name"], **members)


def _known(record: LabRecord, node: str) -> str:
    record.control_path(node)
    return node


def _signal(record: LabRecord, node: str, number: signal.Signals) -> None:
    process = record.nodes[_known(record, node)]
    if not leftovers.end_process(process.pid, process.start_time, number):
        raise EnvironmentLacks(f"node {node} has ended")


def _value(key: str, text: str) -> Any:
    if key in ("latency", "jitter"):
        return parse_duration(text)
    if key == "loss":
        return parse_ratio(text)
    if key == "rate":
        return None if text == "none" else parse_rate(text)
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number of frames")
    return int(text)
