"""The control socket answers well-formed requests, and survives everything else."""

import contextlib
import json
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import EnvironmentLacks, SanloomError, UsageError
from nodes.control import client
from nodes.control.server import ANSWER_MAX, CONNECTIONS_MAX, Connection, ControlServer
from provider import ipc


def _refuse(request):
    raise UsageError(f"no {request['what']} here")


async def _stream(request, connection: Connection) -> None:
    readable, writable = os.pipe()
    os.write(writable, b"hello")
    os.close(writable)
    await connection.answer({}, (readable,))
    os.close(readable)
    await connection.closed()


OPERATIONS = {"add": lambda r: {"sum": r["a"] + r["b"]}, "refuse": _refuse, "long": lambda _: {"x": "y" * ANSWER_MAX}}


def serving(path, talk):
    """Run ``talk`` in a thread against a server; returns the server."""

    async def main() -> ControlServer:
        server = ControlServer(path, OPERATIONS, {"stream": _stream})
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            await trio.to_thread.run_sync(talk)
            nursery.cancel_scope.cancel()
        assert not path.exists()
        return server

    with_deadline = trio.run(_within, main)
    return with_deadline


async def _within(main):
    with trio.fail_after(20):
        return await main()


@pytest.fixture
def path(runtime):
    return runtime / "node.control"


def test_answers_errors_and_mode(path):
    def talk():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert client.ask(path, "add", a=1, b=2) == {"sum": 3}
        assert client.ask(path, "ping") == {}
        with pytest.raises(SanloomError, match="node node: no thing here"):
            client.ask(path, "refuse", what="thing")
        with pytest.raises(SanloomError, match="unknown operation 'x'; there are ping, add, refuse, long, stream"):
            client.ask(path, "x")
        with pytest.raises(SanloomError, match="the answer is too long"):
            client.ask(path, "long")

    assert serving(path, talk).refused == 0
    with pytest.raises(EnvironmentLacks, match="does not answer"):
        client.ask(path, "ping")


def test_several_requests_on_one_connection_and_a_stream(path):
    def talk():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            for number in (1, "two"):
                sock.send(json.dumps({"id": number, "op": "ping"}).encode())
                assert json.loads(sock.recv(1000)) == {"id": number, "result": {}}
            sock.send(b'{"id": 3, "op": "stream"}')
            _, descriptors, _, _ = socket.recv_fds(sock, 1000, 4)
            (descriptor,) = descriptors
            assert os.read(descriptor, 100) == b"hello"
            os.close(descriptor)

    serving(path, talk)


def test_the_oldest_connection_makes_room_for_one_too_many(path):
    def talk():
        sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(CONNECTIONS_MAX + 1)]
        try:
            for sock in sockets:
                sock.settimeout(10)
                sock.connect(str(path))
                sock.send(b'{"id": 1, "op": "ping"}')
                assert sock.recv(1000)
            assert sockets[0].recv(1000) == b""
            sockets[1].send(b'{"id": 2, "op": "ping"}')
            assert sockets[1].recv(1000)
        finally:
            for sock in sockets:
                sock.close()

    assert serving(path, talk).refused == 1


def test_streams_are_bounded_and_make_no_room(path):
    def talk():
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(33)]
            for sock in streams:
                ipc.connect(sock, str(path), 10)
                sock.send(b'{"id": 3, "op": "stream"}')
                answer, descriptors, _, _ = socket.recv_fds(sock, 1000, 4)
                for descriptor in descriptors:
                    os.close(descriptor)
            assert "32 streams" in json.loads(answer)["error"]["text"]
            idle = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(100)]
            for sock in idle:
                ipc.connect(sock, str(path), 10)
            assert client.ask(path, "ping") == {}
            streams[0].setblocking(False)
            with pytest.raises(BlockingIOError):  # still there, and silent
                streams[0].recv(1)

    serving(path, talk)


def test_callers_that_read_no_answers_hold_nobody_up(path):
    def talk():
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS_MAX + 10):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                sock.connect(str(path))
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    while True:
                        sock.send(b'{"id": 1, "op": "ping"}')
            assert client.ask(path, "add", a=1, b=2) == {"sum": 3}

    serving(path, talk)


@settings(max_examples=10, deadline=None)
@given(
    packets=st.lists(st.binary(min_size=1, max_size=200) | st.just(b"[" * 60_000) | st.just(b'{"op": []}'), max_size=8)
)
def test_any_bytes_are_answered_or_hung_up_on(packets):
    with tempfile.TemporaryDirectory(prefix="sl-") as directory:
        path = Path(directory) / "node.control"

        def talk():
            for packet in packets:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.settimeout(10)
                    sock.connect(str(path))
                    sock.send(packet)
                    assert "error" in json.loads(sock.recv(100_000))
            assert client.ask(path, "ping") == {}

        serving(path, talk)
