"""``sanloom demo``: the main job in one go."""

import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import click

from fabric.errors import UsageError
from fabric.topology.spec import LinkSpec, Topology
from fabric.topology.yaml_model import load
from fabric.units import MILLISECOND, format_size, parse_duration, parse_ratio
from nodes.apps.steps import TITLES
from nodes.cli.options_and_tables import json_option, place_option
from nodes.lab.engines import ENGINES, LAB_CLASSES, AnyLab, lab_options
from nodes.lab.results import new_run_directory
from nodes.lab.topology_files import find_topology

SIZE = 32 << 20
SETTLE = 5.0
TIMEOUT = 110


@click.command()
@click.option("--engine", type=click.Choice(ENGINES), default="process", show_default=True)
@click.option("--mode", type=click.Choice(["suspend", "local", "rehome"]), default="suspend", show_default=True)
@click.option("--file", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this file.")
@click.option("--loss", help="Loss of every link in each direction, for example 2%.")
@click.option("--latency", help="One-way latency of every link, for example 5ms.")
@click.option("--seed", type=int, help="Seed of the links' draws.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True)
@place_option
@json_option
def command(
    engine: str,
    mode: str,
    source: Path | None,
    loss: str | None,
    latency: str | None,
    seed: int | None,
    out: Path,
    places: tuple[str, ...],
    as_json: bool,
) -> int:
    """Move 32 MiB from client to server over slow and lossy links and hand the connection over in mid-transfer."""
    topology = _with_settings(load(find_topology("pair")), loss, latency)
    options = lab_options(engine, topology, "ipc", places)
    run = new_run_directory(out, "demo")
    if source is None:
        source = run / "sent.bin"
        source.write_bytes(os.urandom(SIZE))
    with LAB_CLASSES[engine](topology, run, mode=mode, seed=seed, capture=True, **options) as lab:
        started = time.monotonic()
        reports = _transfer(lab, source, run / "received.bin", mode)
        took = time.monotonic() - started
        _await_disconnection(lab)
        statistics = {node: lab.ask(node, "statistics") for node in ("client", "s1", "server")}
    result = _result(reports, statistics, run, mode, took)
    (run / "result.json").write_text(json.dumps(result, indent=2))
    click.echo(json.dumps(result) if as_json else _text(result, reports))
    return 0 if result["equal"] and result["steps"] == 17 and not result["frames_lost_outside_the_model"] else 1


def _with_settings(topology: Topology, loss: str | None, latency: str | None) -> Topology:
    changes: dict[str, Any] = {}
    try:
        if loss is not None:
            changes["loss"] = parse_ratio(loss)
        if latency is not None:
            changes["latency"] = parse_duration(latency)
    except ValueError as error:
        raise UsageError(f"demo: {error}") from None
    links = tuple(
        LinkSpec(
            link.a, link.b, dataclasses.replace(link.forward, **changes), dataclasses.replace(link.reverse, **changes)
        )
        for link in topology.links
    )
    return dataclasses.replace(topology, links=links)


def _transfer(lab: AnyLab, source: Path, received: Path, mode: str) -> list[dict[str, Any]]:
    """Run the two applications; their reports, in the order of time."""
    run = ["python", "-P", "-m"]
    sent = lab.place("client", source)
    sender = lab.command("client", *run, "nodes.apps.file_sender", sent, stdout=subprocess.PIPE)
    assert sender.stdout is not None
    first = sender.stdout.readline()
    arguments = ["client:7000", "--out", lab.inside(received), "--mode", mode]
    receiver = lab.command("server", *run, "nodes.apps.handoff_source", *arguments, stdout=subprocess.PIPE)
    try:
        output, _ = receiver.communicate(timeout=TIMEOUT)
        rest, _ = sender.communicate(timeout=TIMEOUT)
    finally:
        for process in (receiver, sender):
            process.kill()
            process.wait()
    lab.fetch("server", lab.inside(received), received)
    lines = [*output.splitlines(), first, *rest.splitlines()]
    return sorted((json.loads(line) for line in lines if line.strip()), key=lambda report: int(report["at"]))


def _await_disconnection(lab: AnyLab) -> None:
    """Until the connection has been taken down on both sides, so that the capture shows it; at most SETTLE seconds."""
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline and any(lab.ask(host, "ps")["sockets"] for host in ("client", "server")):
        time.sleep(0.005)


def _result(
    reports: list[dict[str, Any]], statistics: dict[str, Any], run: Path, mode: str, took: float
) -> dict[str, Any]:
    steps = {(r["step"], r["moment"]): r["at"] for r in reports if r["event"] == "step"}
    found = {r["event"]: r for r in reports}
    sent, received = found.get("sent", {}), found.get("received", {})
    done = [s for s in TITLES if (s, "after") in steps]
    handoff = steps[8, "after"] - steps[5, "before"] if (8, "after") in steps else None
    first = found["first byte"]["at"] - steps[5, "before"] if "first byte" in found else None
    return {
        "equal": bool(sent) and sent.get("sha256") == received.get("sha256"),
        "sha256": received.get("sha256"),
        "bytes": received.get("bytes"),
        "mode": mode,
        "seconds": round(took, 3),
        "steps": len(done),
        "handoff_to_descriptor_ns": handoff,
        "handoff_to_first_byte_ns": first,
        "packets_retransmitted": sum(s["packets_retransmitted"] for s in statistics.values()),
        "frames_lost_outside_the_model": sum(s["lost_outside_model"] for s in statistics.values()),
        "capture": str(run / "capture.pcapng"),
        "journal": str(run / "events.jsonl"),
    }


def _text(result: dict[str, Any], reports: list[dict[str, Any]]) -> str:
    lines = ["   ms after step 1   step"]
    steps = {(r["step"], r["moment"]): (r["at"], r["role"]) for r in reports if r["event"] == "step"}
    start = steps[1, "before"][0] if (1, "before") in steps else 0
    for number, title in TITLES.items():
        if (number, "after") in steps:
            (begin, role), (end, _) = steps[number, "before"], steps[number, "after"]
            at, to = (begin - start) / MILLISECOND, (end - start) / MILLISECOND
            lines.append(f"  {at:8.1f} {to:8.1f}   {number:2}  {role:7} {title}")
    equal = "equal at both ends" if result["equal"] else "DIFFERENT"
    rate = format_size(int(result["bytes"] / result["seconds"])) if result["bytes"] else "0B"
    lines += [
        f"{format_size(result['bytes'] or 0)} in {result['seconds']} s ({rate}/s), SHA-256 {equal}: {result['sha256']}",
        f"handoff ({result['mode']}): {(result['handoff_to_descriptor_ns'] or 0) / MILLISECOND:.1f} ms from the call of"
        f" WSPDuplicateSocket to the descriptor in the target,"
        f" {(result['handoff_to_first_byte_ns'] or 0) / MILLISECOND:.1f} ms to the first byte",
        f"packets retransmitted: {result['packets_retransmitted']};"
        f" frames lost outside the model: {result['frames_lost_outside_the_model']}",
        f"capture: {result['capture']}",
        f"journal: {result['journal']}",
    ]
    return "\n".join(lines)
