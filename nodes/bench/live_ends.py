"""Frames per second from host to host through one network switch, all three of them live nodes, against source, bare
relay and sink.

:mod:`nodes.bench.forwarding` loads the network switch alone; here the frames also pass a driver at both ends, batched
as the driver happens to batch them, and the ends' share of the processors counts. Both arrangements have a process
per place, the same window of unacknowledged frames and as many acknowledgements.
"""

import contextlib
import dataclasses
import json
import secrets
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fabric.assembly import Plan
from fabric.errors import SanloomError
from fabric.topology.yaml_model import parse
from fabric.units import SECOND
from nodes.bench.figures import Figure, from_rounds
from nodes.bench.forwarding import FLOOR, SIZES, TOPOLOGY, make_frame, relay
from nodes.lab import engines, records
from nodes.lab.compose_engine import ComposeLab
from nodes.lab.process_engine import Lab
from nodes.lab.swarm_engine import SwarmLab

WINDOW = 512
"""Four connections' worth of unacknowledged packets."""
WARM_UP_SECONDS = 0.05
ANSWER_SECONDS = 20.0


class GeneratorLab(Lab):
    """A lab whose hosts make and count frames."""

    host_program = "nodes.bench.generator"


class GeneratorComposeLab(ComposeLab):
    """The same in containers."""

    host_role = "generator"


class GeneratorSwarmLab(SwarmLab):
    """The same on Swarm."""

    host_role = "generator"


LABS: dict[str, type[Lab] | type[ComposeLab] | type[SwarmLab]] = {
    "process": GeneratorLab,
    "compose": GeneratorComposeLab,
    "swarm": GeneratorSwarmLab,
}


def measure(*, seconds: float, rounds: int, engine: str = "process") -> list[Figure]:
    """Interleaved rounds of ``seconds`` each. The bare arrangement always runs on the machine itself."""
    figures = []
    with _live(engine) as live, _bare() as bare:
        for size in SIZES:
            frame = make_frame(Plan(parse(TOPOLOGY, "bench")), size).hex()
            for burst in (live, bare):
                burst(frame, WARM_UP_SECONDS)
            pairs = [(live(frame, seconds), bare(frame, seconds)) for _ in range(rounds)]
            ours, baseline = zip(*pairs, strict=True)
            name = f"forwarding {size} B, live hosts" + ("" if engine == "process" else ", in containers")
            figures.append(
                from_rounds(name, "frames/s", ours, baseline, "bare pyzmq source, relay, sink", at_least=FLOOR)
            )
    return figures


@contextlib.contextmanager
def _live(engine: str) -> Iterator[Callable[[str, float], float]]:
    name = f"bench-{secrets.token_hex(3)}"  # its results go with its directory
    run = records.labs_directory() / name / "run"
    try:
        with LABS[engine](parse(TOPOLOGY, "bench"), run, name=name) as lab:
            record = dataclasses.replace(lab.record, nodes=dict(lab.record.nodes))
            client = record.nodes["client"]
            record.nodes["client"] = dataclasses.replace(client, control=client.control.replace(".control", ".bench"))

            def burst(frame: str, seconds: float) -> float:
                done = engines.ask(record, "client", "burst", frame=frame, window=WINDOW, seconds=seconds)
                return _rate(done)

            yield burst
    finally:
        shutil.rmtree(run.parent, ignore_errors=True)


@contextlib.contextmanager
def _bare() -> Iterator[Callable[[str, float], float]]:
    with relay() as directory, _end("sink", directory), _end("source", directory) as source:
        assert source.stdin is not None
        assert source.stdout is not None
        requests, answers = source.stdin, source.stdout

        def burst(frame: str, seconds: float) -> float:
            requests.write(json.dumps({"frame": frame, "window": WINDOW, "seconds": seconds}) + "\n")
            requests.flush()
            if not select.select([answers], [], [], ANSWER_SECONDS)[0]:
                raise SanloomError("the bare relay does not answer")
            return _rate(json.loads(answers.readline()))

        yield burst


def _rate(done: dict[str, Any]) -> float:
    return int(done["frames"]) / int(done["ns"]) * SECOND


@contextlib.contextmanager
def _end(role: str, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    arguments = [sys.executable, "-P", "-m", "fabric.live.relay_ends", role, str(directory)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
