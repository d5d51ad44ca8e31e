"""Frames per second from host to host through one network switch, all three of them live nodes, against source, bare
relay and sink.

:mod:`nodes.bench.forwarding` loads the network switch alone; here the frames also pass a driver at both ends, batched
as the driver happens to batch them, and the ends' share of the processors counts. Both arrangements have a process
per place, the same window of unacknowledged frames and as many acknowledgements.
"""

import contextlib
import json
import secrets
import select
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
from nodes.control import client
from nodes.lab import records
from nodes.lab.process_engine import Lab

WINDOW = 512
"""Four connections' worth of unacknowledged packets."""
WARM_UP_SECONDS = 0.05
ANSWER_SECONDS = 20.0


class GeneratorLab(Lab):
    """A lab whose hosts make and count frames."""

    host_program = "nodes.bench.generator"


def measure(*, seconds: float, rounds: int) -> list[Figure]:
    """Interleaved rounds of ``seconds`` each."""
    figures = []
    with _live() as live, _bare() as bare:
        for size in SIZES:
            frame = make_frame(Plan(parse(TOPOLOGY, "bench")), size).hex()
            for burst in (live, bare):
                burst(frame, WARM_UP_SECONDS)
            pairs = [(live(frame, seconds), bare(frame, seconds)) for _ in range(rounds)]
            ours, baseline = zip(*pairs, strict=True)
            name = f"forwarding {size} B, live hosts"
            figures.append(
                from_rounds(name, "frames/s", ours, baseline, "bare pyzmq source, relay, sink", at_least=FLOOR)
            )
    return figures


@contextlib.contextmanager
def _live() -> Iterator[Callable[[str, float], float]]:
    name = f"bench-{secrets.token_hex(3)}"  # its results go with its directory
    run = records.labs_directory() / name / "run"
    with GeneratorLab(parse(TOPOLOGY, "bench"), run, name=name) as lab:

        def burst(frame: str, seconds: float) -> float:
            path = lab.directory / "client.bench"
            return _rate(client.ask(path, "burst", frame=frame, window=WINDOW, seconds=seconds))

        yield burst


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
