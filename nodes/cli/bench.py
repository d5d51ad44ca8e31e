"""``sanloom bench``: measured ratios of one run."""

import json
import os
import platform
import signal
import sys
from collections.abc import Callable

import click

from nodes.bench.figures import Figure
from nodes.cli.options_and_tables import json_option, table
from nodes.lab.engines import ENGINES


def _forwarding(quick: bool, engine: str) -> list[Figure]:
    from nodes.bench import forwarding, live_ends

    seconds, rounds = (0.2, 2) if quick else (0.8, 3)
    if engine != "process":
        return _in_container("forwarding", quick) + live_ends.measure(seconds=seconds, rounds=rounds, engine=engine)
    return forwarding.measure(seconds=seconds, rounds=rounds) + live_ends.measure(seconds=seconds, rounds=rounds)


def _goodput(quick: bool, engine: str) -> list[Figure]:
    from nodes.bench import goodput

    return goodput.measure(size=(4 if quick else 32) << 20, rounds=2 if quick else 5, engine=engine)


def _delay(quick: bool, engine: str) -> list[Figure]:
    if engine != "process":
        return _in_container("delay", quick)
    from nodes.bench import delay

    return delay.measure(frames=12 if quick else 64, rounds=2 if quick else 5)


def _handoff(quick: bool, engine: str) -> list[Figure]:
    from nodes.bench import handoff

    return handoff.measure(rounds=16 if quick else 100, engine=engine)


def _simulator(quick: bool, engine: str) -> list[Figure]:
    if engine != "process":
        return _in_container("simulator", quick)
    from nodes.bench import reliable_connection, simulator

    rounds = 2 if quick else 5
    return simulator.measure(size=(1 if quick else 4) << 20, rounds=rounds) + reliable_connection.measure(
        packets=5_000 if quick else 20_000, rounds=rounds
    )


def _in_container(name: str, quick: bool) -> list[Figure]:
    from nodes.bench import in_container

    return in_container.measure(name, quick=quick)


MEASUREMENTS: dict[str, Callable[[bool, str], list[Figure]]] = {
    "forwarding": _forwarding,
    "goodput": _goodput,
    "delay": _delay,
    "handoff": _handoff,
    "simulator": _simulator,
}


@click.command()
@click.option("--only", type=click.Choice(list(MEASUREMENTS)), multiple=True, help="Just this; may be repeated.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="process",
    show_default=True,
    help="Where it is measured: a lab of this engine; what needs no lab, in one container of the image.",
)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: rough figures in some seconds.")
@json_option
def command(only: tuple[str, ...], engine: str, quick: bool, as_json: bool) -> int:
    """Measure this machine. Exit status 1 if a floor is missed.

    Every ratio is ours divided by a baseline that was measured in the same run, in turns.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end in order, as with Ctrl-C
    figures: list[Figure] = []
    for name in dict.fromkeys(only or MEASUREMENTS):
        if sys.stderr.isatty():
            click.echo(f"measuring {name} ...", err=True)
        try:
            figures += MEASUREMENTS[name](quick, engine)
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt) is not None:
                raise KeyboardInterrupt from None
            raise
    if as_json:
        machine = {"python": platform.python_version(), "system": platform.release(), "processors": os.cpu_count()}
        click.echo(
            json.dumps(
                {"machine": machine, "engine": engine, "quick": quick, "figures": [f.to_json() for f in figures]}
            )
        )
    else:
        click.echo(_text(figures))
    return 1 if any(figure.holds is False for figure in figures) else 0


def _text(figures: list[Figure]) -> str:
    rows = []
    for figure in figures:
        ratio = figure.ratio
        bound = [f">= {figure.at_least:.3g}"] if figure.at_least is not None else []
        unit = f" {figure.unit}" if figure.judge_value else ""
        bound += [f"<= {figure.at_most:.3g}{unit}"] if figure.at_most is not None else []
        verdict = {None: "", True: "holds", False: "MISSED"}[figure.holds]
        rows.append(
            [
                figure.name,
                f"{figure.ours:,.4g} {figure.unit}" if figure.ours < 1000 else f"{figure.ours:,.0f} {figure.unit}",
                None if figure.spread is None else f"{figure.spread:.0%}",
                None if figure.baseline is None else f"{figure.baseline:,.4g}",
                figure.baseline_name or None,
                None if ratio is None else f"{ratio:.3g}",
                " and ".join(bound) or None,
                verdict,
            ]
        )
    return table(["WHAT", "OURS", "+-", "BASELINE", "OF", "RATIO", "BOUND", ""], rows)
