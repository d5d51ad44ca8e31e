"""``sanloom ps``: nodes of the running labs, processes on their hosts, connections with their owners."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from fabric.errors import SanloomError
from nodes.cli.options_and_tables import json_option, lab_option, table
from nodes.lab import engines, records


@click.command()
@lab_option
@json_option
def command(lab_name: str | None, as_json: bool) -> int:
    """Show nodes, processes and connections; a connection with its controlling process and its epoch.

    Exit status 1 if a node of a lab has ended or does not answer.
    """
    labs = [records.find(lab_name)] if lab_name is not None else records.running()
    shown = [_describe(lab) for lab in labs]
    if as_json:
        click.echo(json.dumps(shown))
    elif not shown:
        click.echo("no lab is running")
    else:
        click.echo("\n\n".join(_text(lab) for lab in shown))
    return 0 if all(node["state"] == "up" for lab in shown for node in lab["nodes"]) else 1


def _describe(lab: records.LabRecord) -> dict[str, Any]:
    states = engines.states(lab)
    with ThreadPoolExecutor(8) as pool:
        nodes = list(pool.map(lambda name: _describe_node(lab, name, states[name]), lab.nodes))
    return {
        "lab": lab.name,
        "engine": lab.engine,
        "run": lab.run_directory,
        "detached": lab.detached,
        "nodes": nodes,
        "applications": engines.applications(lab),
    }


def _describe_node(lab: records.LabRecord, name: str, state: str) -> dict[str, Any]:
    node = lab.nodes[name]
    entry: dict[str, Any] = {"node": name, "kind": node.kind, "pid": node.pid or None, "state": state}
    if state == "up":
        try:
            entry |= engines.ask(lab, name, "ps") | {"kind": node.kind}
        except SanloomError as error:
            entry |= {"state": "not answering", "error": str(error)}
    return entry


def _text(lab: dict[str, Any]) -> str:
    nodes = lab["nodes"]
    parts = [
        f"lab {lab['lab']} ({lab['engine']} engine), results: {lab['run']}",
        table(
            ["NODE", "KIND", "ADDRESS", "PID", "STATE"],
            [[n["node"], n["kind"], n.get("ip"), n["pid"], n["state"]] for n in nodes],
        ),
    ]
    clocks = [
        [n["node"], name, each["clock"], each.get("offset_us"), each.get("error_us")]
        for n in nodes
        for name, each in n.get("neighbours", {}).items()
        if each["clock"] != "same"
    ]
    if clocks:
        parts.append(table(["NODE", "HEARS", "FRAMES TIMED BY", "OFFSET (us)", "ERROR (us)"], clocks))
    if lab["applications"]:
        rows = [
            [*name.split("."), a["pid"] or None, _ending(a), a["restarts"]] for name, a in lab["applications"].items()
        ]
        parts.append(table(["HOST", "APPLICATION", "PID", "STATE", "RESTARTS"], rows))
    processes = [[n["node"], p["pid"], p["name"]] for n in nodes for p in n.get("processes", [])]
    if processes:
        parts.append(table(["HOST", "PID", "PROCESS"], processes))
    sockets = [
        [
            n["node"],
            s["socket"],
            s["state"],
            _address(s["local"]),
            _address(s["peer"]),
            s["controlling"],
            s["epoch"],
            " ".join(str(pid) for pid, _ in s["descriptors"]) or None,
        ]
        for n in nodes
        for s in n.get("sockets", [])
    ]
    if sockets:
        header = ["HOST", "SOCKET", "STATE", "LOCAL", "PEER", "CONTROLLED BY", "EPOCH", "DESCRIPTORS OF"]
        parts.append(table(header, sockets))
    return "\n\n".join(parts)


def _ending(application: dict[str, Any]) -> str:
    status = application["status"]
    return str(application["state"]) if status is None else f"{application['state']} ({status})"


def _address(address: Any) -> str | None:
    return None if not address else f"{address[0]}:{address[1]}"
