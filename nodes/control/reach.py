"""``python -m nodes.control.reach``: what the lab's controller runs to reach a node in a container anywhere.

::

    reach NODE exec [--terminal] -- COMMAND...     its input, output and exit status are ours
    reach NODE pause|resume|kill                   all that runs in the node's container
    reach NODE,NODE... state                       {"NODE": {"paused": false, "ready": true} | null, ...}

Exit status 125, and a sentence on standard error, if the node does not answer or refuses.
"""

import contextlib
import json
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any, Self

import trio

from fabric.errors import SanloomError
from fabric.live.curve import Credentials
from fabric.live.message_channel import MessageClient
from nodes.control.remote_messages import (
    ALIVE_SECONDS,
    CHUNK,
    SILENT_SECONDS,
    Credit,
    Kind,
    decode,
    decode_credit,
    decode_json,
    encode,
    encode_credit,
    encode_json,
)

UNREACHABLE = 125
STATE_SECONDS = 1.5
OPERATIONS = ("pause", "resume", "kill")


class NodeDoesNotAnswer(SanloomError):
    """Nothing was heard from a node's remote control for SILENT_SECONDS, or it refused."""


class Reach:
    """One connection to one node's remote control."""

    def __init__(self, node: str, address: str, credentials: Credentials) -> None:
        self._node = node
        self._client = MessageClient(address, credentials, node)
        self._credit = Credit()
        self._credited = trio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    async def ask(self, operation: str, seconds: float = SILENT_SECONDS) -> dict[str, Any]:
        """The node's answer. NodeDoesNotAnswer."""
        self._client.send(encode_json(Kind.ASK, {"op": operation}))
        while True:
            kind, payload = await self._next(seconds)
            if kind is Kind.ANSWER:
                return decode_json(payload)

    async def run(
        self,
        arguments: list[str],
        terminal: tuple[int, int] | None,
        source: trio.abc.ReceiveStream,
        outputs: dict[Kind, trio.abc.SendStream],
    ) -> int:
        """The exit status of a command whose input is ``source``. NodeDoesNotAnswer."""
        self._client.send(encode_json(Kind.RUN, {"arguments": arguments, "terminal": terminal}))
        failure: SanloomError
        async with trio.open_nursery() as nursery:
            if terminal is not None:
                nursery.start_soon(self._follow_size)
            nursery.start_soon(self._carry_input, source)
            nursery.start_soon(self._keep_alive)
            try:
                status = await self._until_exit(outputs)
            except SanloomError as error:
                failure = error
            else:
                return status
            finally:
                nursery.cancel_scope.cancel()
        raise failure

    async def _until_exit(self, outputs: dict[Kind, trio.abc.SendStream]) -> int:
        while True:
            kind, payload = await self._next(SILENT_SECONDS)
            if kind is Kind.EXIT:
                return int(decode_json(payload)["status"])
            if kind is Kind.CREDIT:
                self._credit.give(decode_credit(payload))
                self._credited.set()
                self._credited = trio.Event()
            elif kind in outputs:
                try:
                    await outputs[kind].send_all(payload)
                except trio.BrokenResourceError:
                    return 0  # nobody reads on; our silence ends the command there
                self._client.send(encode_credit(len(payload)))

    async def _next(self, seconds: float) -> tuple[Kind, bytes]:
        message = None
        with trio.move_on_after(seconds):
            message = await self._client.receive()
        if message is None:
            raise NodeDoesNotAnswer(f"node {self._node} does not answer")
        kind, payload = decode(message)
        if kind is Kind.REFUSED:
            raise NodeDoesNotAnswer(f"node {self._node}: {payload.decode(errors='replace')}")
        return kind, payload

    async def _carry_input(self, source: trio.abc.ReceiveStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, OSError):
            while True:
                while not self._credit.left:
                    await self._credited.wait()
                data = await source.receive_some(min(CHUNK, self._credit.left))
                self._credit.take(len(data))
                self._client.send(encode(Kind.INPUT, bytes(data)))
                if not data:
                    return
        self._client.send(encode(Kind.INPUT))

    async def _follow_size(self) -> None:
        with trio.open_signal_receiver(signal.SIGWINCH) as resized:
            async for _ in resized:
                self._client.send(encode_json(Kind.RESIZE, {"terminal": own_terminal()}))

    async def _keep_alive(self) -> None:
        while True:
            self._client.send(encode(Kind.ALIVE))
            await trio.sleep(ALIVE_SECONDS)


async def states(nodes: list[str], connect: Callable[[str], Reach]) -> dict[str, dict[str, Any] | None]:
    """Node -> its state, ``None`` for one that does not answer in STATE_SECONDS."""
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(nodes)

    async def ask(node: str) -> None:
        with contextlib.suppress(NodeDoesNotAnswer), connect(node) as reach:
            found[node] = await reach.ask("state", STATE_SECONDS)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    return found


async def run_here(reach: Reach, arguments: list[str], *, terminal: bool) -> int:
    """Run a command with our own standard input, output and errors."""
    with raw_terminal() if terminal else contextlib.nullcontext():
        streams = [trio.lowlevel.FdStream(os.dup(fd)) for fd in (0, 1, 2)]
        try:
            return await reach.run(
                arguments,
                own_terminal() if terminal else None,
                streams[0],
                {Kind.OUTPUT: streams[1], Kind.ERRORS: streams[2]},
            )
        finally:
            for stream in streams:
                await trio.aclose_forcefully(stream)


def own_terminal() -> tuple[int, int]:
    """Rows and columns of our terminal; usual ones while whoever gave it to us has not said."""
    size = os.get_terminal_size(0)
    return size.lines or 24, size.columns or 80


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key goes to the other side as it is."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def main() -> int:
    """Entry point."""
    from nodes.container import CONTROL_PORT, credentials_for

    name, operation, *rest = sys.argv[1:]
    nodes = name.split(",")

    def connect(node: str) -> Reach:
        return Reach(node, f"tcp://{node}:{CONTROL_PORT}", credentials_for(node))

    try:
        if operation == "state":
            print(json.dumps(trio.run(states, nodes, connect)))
            return 0
        with connect(nodes[0]) as reach:
            if operation in OPERATIONS:
                print(json.dumps(trio.run(reach.ask, operation)))
                return 0
            separator = rest.index("--")
            arguments = rest[separator + 1 :]
            terminal = "--terminal" in rest[:separator]

            async def run() -> int:
                return await run_here(reach, arguments, terminal=terminal)

            return trio.run(run)
    except SanloomError as error:
        sys.stderr.write(f"{error}\n")
        return UNREACHABLE


if __name__ == "__main__":
    sys.exit(main())
