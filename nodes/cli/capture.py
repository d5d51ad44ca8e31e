"""``sanloom capture``: frames of a running lab, live, as pcapng into a file or a pipe."""

import contextlib
import os
import select
import signal
import stat
import sys
import time
from pathlib import Path
from typing import BinaryIO

import click

from fabric.capture.live_stream import LiveCapture
from fabric.capture.merge import LiveMerge
from fabric.errors import UsageError
from fabric.wire.pcapng import MalformedCapture
from nodes.cli.options_and_tables import lab_option
from nodes.lab import records
from nodes.lab.engines import open_capture, open_entries

ADVANCE_SECONDS = 0.1
READ_AT_ONCE = 1 << 18


@click.command()
@lab_option
@click.option("--on", "places", multiple=True, metavar="LINK|HOST", help="A node, or a link direction (client->s1).")
@click.option("-w", "target", required=True, metavar="FILE|-", help="Where to write; - is standard output.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after about this many frames.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this time.")
def command(
    lab_name: str | None, places: tuple[str, ...], target: str, count: int | None, seconds: float | None
) -> int:
    """Capture until Ctrl-C, or until the lab ends. Without --on: every link once, where frames enter it.

    A link named ``client->s1`` shows what enters it, with a comment on what it then loses; ``"client->s1 exit"``
    shows what comes out of it. A host or network switch shows all that it sends and receives.

    sanloom capture --on client -w - | wireshark -k -i -
    """
    lab = records.find(lab_name)
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(source) for source in _open(lab, places)]
        output = stack.enter_context(_output(target))
        merge = LiveMerge(output.write)
        _install_signals()
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # Ctrl-C, or the reader has gone
            _pump(sources, merge, output, count, None if seconds is None else time.monotonic() + seconds)
        with contextlib.suppress(BrokenPipeError):
            merge.finish()
            output.flush()
        found = merge.statistics()
    _quiet_stdout()
    click.echo(f"{found.packets} frames captured" + (f", {found.late} out of order" if found.late else ""), err=True)
    return 0


def _open(lab: records.LabRecord, places: tuple[str, ...]) -> list[LiveCapture]:
    opened: list[LiveCapture] = []
    try:
        if places:
            opened.extend(open_capture(lab, place) for place in dict.fromkeys(places))
        else:
            for node in lab.nodes:
                links = [link["name"] for link in lab.links if link["source"] == node]
                if links:
                    opened.append(open_entries(lab, node, links))
    except BaseException:
        for capture in opened:
            capture.close()
        raise
    return opened


def _output(target: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if target == "-":
        if sys.stdout.isatty():
            raise UsageError("-w -: a capture is not for a terminal; pipe it: sanloom capture -w - | wireshark -k -i -")
        return contextlib.nullcontext(sys.stdout.buffer)
    try:
        return Path(target).open("wb")
    except OSError as error:
        raise UsageError(f"-w {target}: cannot be written: {error.strerror}") from None


def _install_signals() -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def _pump(
    sources: list[LiveCapture], merge: LiveMerge, output: BinaryIO, count: int | None, deadline: float | None
) -> None:
    """Copy until all sources have ended, the reader has gone, or enough was seen."""
    numbers = {source.fileno(): (merge.add_source(), source) for source in sources}
    poller = select.poll()
    for descriptor in numbers:
        poller.register(descriptor, select.POLLIN)
    target = _poll_reader(poller, output)
    while numbers:
        if deadline is not None and time.monotonic() >= deadline:
            return
        for descriptor, _events in poller.poll(ADVANCE_SECONDS * 1000):
            if descriptor == target:
                return  # nobody reads any more
            number, source = numbers[descriptor]
            data = source.read(READ_AT_ONCE)
            if not data:
                poller.unregister(descriptor)
                del numbers[descriptor]
                continue
            try:
                merge.feed(number, data)
            except MalformedCapture as error:  # pragma: no cover - our own nodes write it
                raise AssertionError(f"a node's capture stream is damaged: {error}") from error
        merge.advance(time.time_ns())
        output.flush()
        if count is not None and merge.statistics().packets >= count:
            return


def _poll_reader(poller: select.poll, output: BinaryIO) -> int | None:
    """Notice at once that the reader of a pipe has gone, also while there is nothing to write."""
    descriptor = output.fileno()
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        poller.register(descriptor, 0)
        return descriptor
    return None


def _quiet_stdout() -> None:
    """Python flushes standard output at its end; with the reader gone that would be an error message."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
