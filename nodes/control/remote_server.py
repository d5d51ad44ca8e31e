"""``python -m nodes.control.remote_server NODE``: lets the lab's controller into this container.

Where a launcher cannot reach a container through its engine, because the engine of another machine runs it, the lab
has a controller, whose key is the only one that is let in here (:mod:`fabric.live.message_channel`). It may run
commands as the node's user, and freeze, thaw and kill all that runs here: what ``docker exec``, ``pause`` and ``kill``
give to whoever reaches the engine. It is a process of its own, so that it answers also while the node is frozen.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from fabric.errors import SanloomError
from fabric.live.curve import Credentials
from fabric.live.message_channel import MessageServer
from nodes.control.container_processes import ContainerProcesses
from nodes.control.remote_command import RemoteCommand
from nodes.control.remote_messages import (
    ALIVE_SECONDS,
    CREDIT_BYTES,
    SILENT_SECONDS,
    Kind,
    MalformedMessage,
    decode,
    decode_arguments,
    decode_credit,
    decode_json,
    decode_resize,
    encode,
    encode_json,
)

COMMANDS_MAX = 64


class _Session:
    """A client that runs a command."""

    def __init__(self, command: RemoteCommand) -> None:
        self.command = command
        self.scope = trio.CancelScope()
        self.heard_at = trio.current_time()


class RemoteServer:
    """See the module text. ``is_ready`` says whether the node serves and has heard its neighbours."""

    def __init__(self, channel: MessageServer, processes: ContainerProcesses, is_ready: Callable[[], bool]) -> None:
        self._channel = channel
        self._processes = processes
        self._is_ready = is_ready
        self._sessions: dict[bytes, _Session] = {}
        self.malformed = 0

    async def serve(self) -> None:
        """Until cancelled; commands that run then are ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._channel.admit)
            nursery.start_soon(self._keep_alive)
            while True:
                route, message = await self._channel.receive()
                try:
                    self._handle(route, *decode(message), nursery)
                except MalformedMessage as error:
                    self.malformed += 1
                    self._refuse(route, str(error))

    def _handle(self, route: bytes, kind: Kind, payload: bytes, nursery: trio.Nursery) -> None:
        session = self._sessions.get(route)
        if session is not None:
            self._continue(session, kind, payload)
        elif kind is Kind.RUN:
            self._run(route, payload, nursery)
        elif kind is Kind.ASK:
            self._channel.send(route, encode_json(Kind.ANSWER, self._answer(decode_json(payload))))
        # anything else comes from a client whose command has just ended

    def _continue(self, session: _Session, kind: Kind, payload: bytes) -> None:
        session.heard_at = trio.current_time()
        command = session.command
        if kind is Kind.INPUT:
            if command.pending + len(payload) > CREDIT_BYTES:
                raise MalformedMessage("more input than the credit allows")
            command.feed(payload)
        elif kind is Kind.CREDIT:
            command.credit.give(decode_credit(payload))
            command.credited()
        elif kind is Kind.RESIZE:
            command.resize(decode_resize(payload))
        elif kind is not Kind.ALIVE:
            raise MalformedMessage(f"{kind.name} while a command runs")

    def _run(self, route: bytes, payload: bytes, nursery: trio.Nursery) -> None:
        arguments, terminal = decode_arguments(payload)
        if self._processes.paused:
            self._channel.send(route, encode(Kind.REFUSED, b"the node is paused"))
        elif len(self._sessions) >= COMMANDS_MAX:
            self._channel.send(route, encode(Kind.REFUSED, f"{COMMANDS_MAX} commands run here already".encode()))
        else:
            command = RemoteCommand(arguments, terminal, lambda message: self._send(route, message))
            session = self._sessions[route] = _Session(command)
            nursery.start_soon(self._carry_through, route, session)

    async def _carry_through(self, route: bytes, session: _Session) -> None:
        try:
            with session.scope:
                await session.command.run()
        finally:
            del self._sessions[route]

    def _send(self, route: bytes, message: bytes) -> None:
        """To a client whose command runs; one that has gone, or takes nothing, ends it."""
        if not self._channel.send(route, message):
            session = self._sessions.get(route)
            if session is not None:
                session.scope.cancel()

    def _refuse(self, route: bytes, text: str) -> None:
        self._channel.send(route, encode(Kind.REFUSED, text.encode()))
        session = self._sessions.get(route)
        if session is not None:
            session.scope.cancel()

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep(ALIVE_SECONDS)
            for route, session in list(self._sessions.items()):
                self._send(route, encode(Kind.ALIVE))
                if trio.current_time() - session.heard_at > SILENT_SECONDS:
                    session.scope.cancel()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        operations = {
            "state": lambda: None,
            "pause": self._processes.pause,
            "resume": self._processes.resume,
            "kill": self._processes.kill,
        }
        operation = request.get("op")
        if not isinstance(operation, str) or operation not in operations:
            raise MalformedMessage(f"unknown operation {operation!r}; there are {', '.join(operations)}")
        operations[operation]()
        return {"paused": self._processes.paused, "ready": self._is_ready()}


async def serve(address: str, credentials: Credentials, ready_file: Path) -> None:
    """A server at ``address`` until cancelled."""
    channel = MessageServer(address, credentials)
    try:
        await RemoteServer(channel, ContainerProcesses(frozenset({os.getpid()})), ready_file.exists).serve()
    finally:
        channel.close()


def main() -> int:
    """Entry point; the keys and addresses are those of the image."""
    from nodes.container import CONTROL_PORT, READY, credentials_for

    try:
        trio.run(serve, f"tcp://*:{CONTROL_PORT}", credentials_for("control"), READY)
    except SanloomError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
