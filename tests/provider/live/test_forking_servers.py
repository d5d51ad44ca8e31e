"""Servers that fork: after accept, and before it."""

import itertools
import os
import signal
import subprocess
import sys

import pytest

from tests.support.labs import wait_until

pytestmark = pytest.mark.live
ports = itertools.count(7600)
CLIENT = """
c = socket.create_connection(("server", {port}), timeout=20)
def hear(count):
    got = b""
    while len(got) < count:
        part = c.recv(count - len(got))
        if not part: raise EOFError(f"the stream ended: {{got!r}}")
        got += part
    return got
"""


@pytest.fixture
def clients(puppets):
    """``clients(port)`` connects one to the server's port, when somebody listens there."""

    def connect(port):
        client = puppets("client")
        client.run(CLIENT.format(port=port))
        return client

    return connect


@pytest.fixture
def program(lab, puppets):
    """``program(code)`` runs code on the server; started when it has said "listening", and ended with the test."""
    started = []

    def start(code):
        process = lab.command("server", sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        first, *children = process.stdout.readline().split()
        assert first == "listening"
        return process, [int(pid) for pid in children]

    yield start
    for process in started:
        process.kill()
        process.wait(20)
        process.stdin.close()
        process.stdout.close()


SHORT = """
stop, served, failures = {count}, 0, []
def call():
    global served
    try:
        for _ in range({count}):
            with socket.create_connection(("server", {port}), timeout=20) as c:
                c.sendall(b"hello"); c.shutdown(socket.SHUT_WR)
                got = b""
                while part := c.recv(100): got += part
                assert got.endswith(b"\\nhello"), got
                served += 1
    except BaseException as error: failures.append(repr(error))
threads = [threading.Thread(target=call) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
failures, served"""
PREFORKING = """
import os, sys
from provider import socket
listener = socket.create_server(("", {port}))
{before}
def serve():
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"%d\\n" % os.getpid())
            while data := connection.recv(65536):
                connection.sendall(data)
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        try: serve()
        finally: os._exit(1)
    children.append(pid)
{after}
print("listening", *children, flush=True)
os.read(0, 1)
"""
FORKING = """
import socketserver, os
from provider import run
run.replace_socket_module()
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"%d\\n" % os.getpid())
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
with Server(("", {port}), Echo) as server:
    print("listening", flush=True)
    server.serve_forever(poll_interval=0.05)
"""


def first_line(client):
    return int(
        client.run("""
line = b""
while not line.endswith(b"\\n"): line += c.recv(1)
line""")
    )


def test_a_forking_socketserver(program, clients):
    port = next(ports)
    server, _ = program(FORKING.format(port=port))
    callers = [clients(port) for _ in range(3)]
    pids = [first_line(caller) for caller in callers]
    assert len({*pids, server.pid}) == 4
    data = bytes(range(256)) * 1000
    for caller in callers:
        caller.start("threading.Thread(target=c.sendall, args=(data,)).start()\nhear(len(data)) == data", data=data)
    assert [caller.result() for caller in callers] == [True] * 3
    for caller in callers:
        assert caller.run("c.shutdown(socket.SHUT_WR); c.recv(1)") == b""


def test_many_short_connections_leave_nothing_behind(program, puppets, lab):
    port = next(ports)
    program(FORKING.format(port=port))
    client = puppets("client")
    assert client.run(SHORT.format(port=port, count=15), seconds=90) == [[], 60]
    states = lambda: [each["state"] for each in lab.ask("server", "ps")["sockets"]]  # noqa: E731
    wait_until(lambda: states() == ["listening"], tell=states)


@pytest.mark.parametrize("parent", ["keeps its listener", "closes its listener", "goes"])
def test_preforked_children_accept_on_the_listener_that_they_inherited(program, clients, parent):
    port = next(ports)
    after = "listener.close()" if parent.startswith("closes") else ""
    server, children = program(PREFORKING.format(port=port, before="", after=after))
    try:
        if parent == "goes":
            server.kill()
            server.wait(20)
        busy = [clients(port) for _ in children]
        assert {first_line(client) for client in busy} == set(children)
        for client in busy:
            assert client.run("c.sendall(b'hello'); hear(5)") == b"hello"
        late = clients(port)  # waits in the backlog until a child is free
        busy[1].run("c.close()")
        assert first_line(late) in children
        victim = children.pop()
        os.kill(victim, signal.SIGKILL)
        for client in (*busy, late):
            client.run("c.close()")
        for _ in range(10):
            client = clients(port)
            assert first_line(client) in children
            client.run("c.close()")
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def test_a_preforked_child_that_waits_by_select(program, clients):
    port = next(ports)
    _, children = program(
        PREFORKING.format(
            port=port,
            before="""
import select
accept = listener.accept
def accept_when_ready():
    listener.setblocking(False)
    while True:
        select.select([listener], [], [])
        try: found = accept()
        except BlockingIOError: continue
        found[0].setblocking(True)
        return found
listener.accept = accept_when_ready
""",
            after="",
        )
    )
    try:
        found = [clients(port) for _ in children]
        assert {first_line(client) for client in found} == set(children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


ASYNC = """
import asyncio, os, sys
from provider import socket
listener = socket.create_server(("", {port}))
async def serve(reader, writer):
    writer.write(b"%d\\n" % os.getpid())
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    listener.setblocking(False)
    async with await asyncio.start_server(serve, sock=listener) as server:
        os.write(ready[1], b".")
        await server.serve_forever()
children = []
ready = os.pipe()
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        try: asyncio.run(main())
        finally: os._exit(1)
    children.append(pid)
for _ in children: os.read(ready[0], 1)
{after}
print("listening", *children, flush=True)
os.read(0, 1)
"""


@pytest.mark.parametrize("parent", ["keeps its listener", "closes its listener", "goes"])
def test_preforked_event_loops(program, clients, parent):
    port = next(ports)
    after = "listener.close()" if parent.startswith("closes") else ""
    server, children = program(ASYNC.format(port=port, after=after))
    try:
        if parent == "goes":
            server.kill()
            server.wait(20)
        for _ in range(8):
            client = clients(port)
            assert first_line(client) in children
            assert client.run("c.sendall(b'hello'); hear(5)") == b"hello"
        os.kill(children.pop(), signal.SIGKILL)
        for _ in range(8):
            client = clients(port)
            assert first_line(client) in children
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
