"""Changes of a running lab: link faults, partitions, and nodes that are frozen or killed. The same on every engine.

Links are named as a direction, ``client->s1``, as both directions, ``client-s1`` (or ``s1-client``), or by a node: all
its links, both ways. The node that transmits on a direction makes the change: all directions of one node at one
instant, the nodes at nearly the same time.

A node that has ended sends nothing, so a partition or a return to the topology goes on without it. One that is paused
cannot be asked: what begins a fault is then refused before anything changes; what ends one is done wherever it can be.
"""

import signal
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from fabric.errors import EnvironmentLacks, SanloomError, UsageError
from fabric.link.changes import EXAMPLES, merged
from fabric.link.settings import LinkSettings
from nodes.lab import compose_engine, engines, leftovers, swarm_engine
from nodes.lab.records import LabRecord

REACHABLE = ("up", "starting")
STOP_SECONDS = 5.0


class Changes(NamedTuple):
    """What was done."""

    links: dict[str, dict[str, Any]]
    """Link direction -> {before, after}."""
    left_out: dict[str, str]
    """Node whose links could not be changed -> its state."""


def find_links(record: LabRecord, text: str) -> list[dict[str, str]]:
    """The link directions that ``text`` means; UsageError with those that there are, or if it may mean several."""
    meanings: dict[str, list[dict[str, str]]] = {}
    for link in record.links:
        ends = link["source"], link["sink"]
        if text == link["name"]:
            return [link]
        if text in ends:
            meanings.setdefault(f"the node {text}", []).append(link)
        if text in ("-".join(ends), "-".join(reversed(ends))):
            meanings.setdefault(f"the link of {' and '.join(sorted(ends))}", []).append(link)
    if len(meanings) > 1:
        raise UsageError(f"{text!r} may be {' or '.join(meanings)}; name its directions, as {record.links[0]['name']}")
    for found in meanings.values():
        return found
    pairs = {frozenset((x["source"], x["sink"])): f"{x['source']}-{x['sink']}" for x in reversed(record.links)}
    quoting = f"; the arrow wants quotes: '{record.links[0]['name']}'" if text.endswith("-") else ""
    names = ", ".join(sorted(pairs.values()))
    raise UsageError(f"the lab {record.name} has no link {text!r}; it has {names}{quoting}")


def parse_settings(texts: Iterable[str]) -> dict[str, str]:
    """``latency=5ms loss=10%`` -> name -> value, each of them looked at. UsageError names the setting."""
    settings: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            examples = " ".join(f"{key}={example}" for key, example in EXAMPLES.items())
            raise UsageError(f"{text!r}: expected SETTING=VALUE, as {examples}")
        if key in settings:
            raise UsageError(f"{key} stands there twice")
        merged(LinkSettings(), {key: value})
        settings[key] = value
    return settings


def set_links(record: LabRecord, text: str, settings: dict[str, str]) -> Changes:
    """Merge ``settings`` into what is set, on all of the links or on none."""
    return _change(record, find_links(record, text), (), settings=settings)


def clear_links(record: LabRecord, text: str | None) -> Changes:
    """Back to what the topology says, partitions included; all links unless ``text`` names some."""
    return _change(record, record.links if text is None else find_links(record, text), None, restore=True)


def list_links(record: LabRecord) -> dict[str, dict[str, Any]]:
    """Link direction -> {latency, ..., partition, original: {...}, dropped: {reason: frames}}; for those of a node that
    cannot be asked only {state}.
    """
    states = engines.states(record)
    nodes = [node for node in record.nodes if states[node] in REACHABLE]
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(nodes, pool.map(lambda node: _ask(record, node, "links"), nodes), strict=True))
    found: dict[str, dict[str, Any]] = {}
    for link in record.links:
        answer = answers.get(link["source"], states[link["source"]])
        if isinstance(answer, dict):
            found[link["name"]] = answer[link["name"]]
        else:
            found[link["name"]] = {"state": answer if isinstance(answer, str) else "not answering"}
    return found


def partition(record: LabRecord, group: list[str], others: list[str] | None, *, one_way: bool = False) -> Changes:
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
        around = sorted({link["sink"] for link in record.links if link["source"] in group} - set(group))
        linked = f"; it is linked with {', '.join(around)}" if around else ""
        raise UsageError(f"partition: no link leads from {', '.join(group)} to {', '.join(rest)}{linked}")
    return _change(record, links, ("ended",), partition=True)


def heal(record: LabRecord) -> Changes:
    """End every partition; other settings stay."""
    done, left_out = _change(record, record.links, None, partition=False)
    return Changes({name: change for name, change in done.items() if change["before"]["partition"]}, left_out)


def pause(record: LabRecord, node: str) -> None:
    """Freeze a node: a container with all that runs in it; of the process engine the node's own process."""
    if record.engine == "process":
        _signal(record, node, signal.SIGSTOP)
        process = record.nodes[node]
        leftovers.await_stopped(process.pid, process.start_time, STOP_SECONDS)
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


def _change(
    record: LabRecord, links: list[dict[str, str]], tolerated: Collection[str] | None, **members: Any
) -> Changes:
    """Ask the nodes that transmit on ``links``.

    A node in a state other than ``tolerated`` stops it beforehand, and one that does not answer although it should
    makes the others go back to what they had. With ``None`` such nodes are left out instead.
    """
    states = engines.states(record)
    names: dict[str, list[str]] = {}
    for link in links:
        names.setdefault(link["source"], []).append(link["name"])
    left_out = {node: states[node] for node in names if states[node] not in REACHABLE}
    for node, state in left_out.items():
        if tolerated is not None and state not in tolerated:
            then = "; resume it first" if state == "paused" else ""
            raise SanloomError(f"nothing has changed: {node} is {state}, and its links are part of it{then}")
    asked = [node for node in names if node not in left_out]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda node: _ask(record, node, "link", link=names[node], **members), asked))
    done = {name: change for answer in answers if isinstance(answer, dict) for name, change in answer.items()}
    failures = {node: answer for node, answer in zip(asked, answers, strict=True) if isinstance(answer, SanloomError)}
    if failures and tolerated is not None:
        _put_back(record, links, done)
        raise next(iter(failures.values()))
    left_out |= dict.fromkeys(failures, "not answering")
    return Changes({link["name"]: done[link["name"]] for link in links if link["name"] in done}, left_out)


def _ask(record: LabRecord, node: str, operation: str, **members: Any) -> dict[str, Any] | SanloomError:
    try:
        return engines.ask(record, node, operation, **members)
    except SanloomError as error:
        return error


def _put_back(record: LabRecord, links: list[dict[str, str]], done: dict[str, dict[str, Any]]) -> None:
    stuck = []
    for link in [link for link in links if link["name"] in done]:
        settings = dict(done[link["name"]]["before"])
        cut = settings.pop("partition")
        answer = _ask(record, link["source"], "link", link=link["name"], settings=settings, partition=cut)
        stuck += [link["name"]] if isinstance(answer, SanloomError) else []
    if stuck:
        raise SanloomError(f"not all nodes answered, and these are changed all the same: {', '.join(stuck)}")


def _known(record: LabRecord, node: str) -> str:
    record.control_path(node)
    return node


def _signal(record: LabRecord, node: str, number: signal.Signals) -> None:
    process = record.nodes[_known(record, node)]
    if not leftovers.end_process(process.pid, process.start_time, number):
        raise EnvironmentLacks(f"node {node} has ended")
