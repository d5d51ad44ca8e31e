"""Descriptors inherited over fork: parent and child use them in turn, and no byte is lost or doubled."""

import itertools
import os
import signal
import subprocess
import sys

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.puppet import PuppetError

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

CHILD = """
import pickle, signal
class Child:
    def __init__(self):
        self.end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self.end.close()
            while code := theirs.recv(1 << 20).decode():
                try:
                    *first, last = code.split("\\n")
                    exec("\\n".join(first), globals())
                    answer = eval(last, globals())
                except BaseException as error: answer = error.__class__.__name__, str(error)
                theirs.send(pickle.dumps(answer))
            os._exit(0)
        theirs.close()
    def start(self, code): self.end.send(code.encode())
    def result(self): return pickle.loads(self.end.recv(1 << 20))
    def do(self, code):
        self.start(code)
        return self.result()
    def join(self):
        self.end.close()
        return os.waitpid(self.pid, 0)[1]
def exactly(count):
    got = b""
    while len(got) < count:
        part = c.recv(count - len(got))
        if not part: raise EOFError(f"the stream ended: {got!r}")
        got += part
    return got
def kill(child):
    os.kill(child.pid, signal.SIGKILL); os.waitpid(child.pid, 0)
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


@pytest.fixture(params=["blocking", "with a timeout"])
def forked(pair, request):
    """(peer, parent): ``child`` is a fork of parent; ``c`` is their connection to the peer."""
    peer, parent = pair
    parent.run(f"c.settimeout({None if request.param == 'blocking' else 20})")
    parent.run(CHILD)
    parent.run("child = Child()")
    return peer, parent


def test_parent_and_child_alternate_and_no_byte_is_lost_or_doubled(forked):
    peer, parent = forked
    data = b"".join(n.to_bytes(4, "big") for n in range(20_000))
    peer.run("echoed = []\nthread = threading.Thread(target=c.sendall, args=(data,)); thread.start()", data=data)
    got = parent.run("""
parts = []
for number in range(40):
    count = 1 + number * 97 % 4000
    code = f"part = exactly({count}); c.sendall(part)\\npart"
    if number % 2:
        parts.append(child.do(code))
    else:
        part = exactly(count); c.sendall(part); parts.append(part)
    if not isinstance(parts[-1], bytes): raise AssertionError(parts[-1])
b"".join(parts)""")
    assert got == data[: len(got)]
    assert len(got) > 40_000
    assert peer.run(read_exactly(str(len(got)))) == got
    rest = parent.run(f"exactly({len(data) - len(got)})")
    assert got + rest == data
    assert parent.run("child.join()") == 0
    parent.run("c.sendall(b'still open'); c.close()")
    assert peer.run(read_exactly("10")) == b"still open"
    assert peer.run("c.recv(1)") == b""


def test_the_connection_ends_with_the_last_of_them(forked):
    peer, parent = forked
    parent.run("c.close()")
    peer.run("c.sendall(b'to whom it may concern')")
    assert parent.run("child.do('exactly(22)')") == b"to whom it may concern"
    parent.run("child.do('c.sendall(bytes(50_000))')")
    assert peer.run(read_exactly("50000")) == bytes(50_000)
    parent.run("child.do('c.close()')")
    assert peer.run("c.recv(1)") == b""


def test_two_who_wait_for_the_same_stream_get_each_byte_once(forked, lab):
    peer, parent = forked
    parent.run("""
child.start("def read():\\n got = []\\n while part := c.recv(100): got.append(part)\\n return got\\nread()")
got = []
def read():
    while part := c.recv(100): got.append(part)
thread = threading.Thread(target=read); thread.start()
""")
    before = lab.ask("server", "ps")["sockets"]
    total = 300
    for number in range(total):
        peer.run(f"c.sendall(({number}).to_bytes(4, 'big'))")
    peer.run("c.shutdown(socket.SHUT_WR)")
    child_got = parent.run("b''.join(child.result())")
    parent_got = parent.run("thread.join(25); b''.join(got)")
    numbers = [
        int.from_bytes(part[i : i + 4], "big") for part in (child_got, parent_got) for i in range(0, len(part), 4)
    ]
    assert sorted(numbers) == list(range(total))
    epoch = lab.ask("server", "ps")["sockets"][0]["epoch"]
    assert epoch <= before[0]["epoch"] + 2 * total + 20, "control went to and fro with nothing to read"


def test_two_who_send_at_once_lose_nothing(forked):
    peer, parent = forked
    parent.run("""
child.start("for _ in range(50): c.sendall(b'C' * 3_000)\\n'done'")
for _ in range(50): c.sendall(b'P' * 3_000)
""")
    got = peer.run(read_exactly("300000"))
    assert (got.count(b"C"), got.count(b"P")) == (150_000, 150_000)
    assert parent.run("child.result()") == "done"


@pytest.mark.parametrize("use", ["None", "c.recv(1)", "c.sendall(b'x')"])
def test_a_child_that_dies_leaves_the_connection_to_its_parent(forked, use):
    peer, parent = forked
    peer.run("c.sendall(b'abc')")
    parent.run(f"child.do({use!r}); kill(child)")
    parent.run("c.sendall(b'parent')")
    expected = (b"x" if "send" in use else b"") + b"parent"
    assert peer.run(read_exactly(str(len(expected)))) == expected
    left = b"bc" if "recv" in use else b"abc"
    assert parent.run(f"exactly({len(left)})") == left


def test_a_parent_that_dies_leaves_the_connection_to_its_child(pair, puppets):
    peer, parent = pair
    parent.run(CHILD)
    parent.run("""
gate = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(gate[1])
    os.read(gate[0], 1)  # the end of file: the parent is dead
    c.sendall(b'orphan')
    c.close()
    os._exit(0)
os.close(gate[0])
""")
    parent.kill()
    assert peer.run(read_exactly("6")) == b"orphan"
    assert peer.run("c.recv(1)") == b""


def test_options_shutdown_names_and_sharing_take_control_too(forked, puppets):
    peer, parent = forked
    target = puppets("server")
    names = parent.run("[c.getsockname(), c.getpeername()]")
    assert parent.run("child.do('[list(c.getsockname()), list(c.getpeername())]')") == names
    parent.run("child.do('c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)')")
    assert parent.run("c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)") == 1
    info = parent.run(f"child.do('c.share({target.pid})')")
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20); c.sendall(b'target')")
    assert peer.run(read_exactly("6")) == b"target"
    with pytest.raises(PuppetError) as refused:  # no relative has it
        parent.run("c.recv(1)")
    assert refused.value.wsa == 10022
    target.run("c.close()")
    parent.run("child.do('c.shutdown(socket.SHUT_WR)')")
    assert peer.run("c.recv(1)") == b""


def test_a_stream_of_trio_takes_control_too(forked):
    peer, parent = forked
    parent.run("""
import trio
from provider.aio import SanStream
code = '''import trio
from provider.aio import SanStream
async def main():
    stream = SanStream(c)
    got = await stream.receive_some(100)
    await stream.send_all(b"child has " + got)
    return got
trio.run(main)'''
child.start(code)
""")
    peer.run("c.sendall(b'one')")
    assert parent.run("child.result()") == b"one"
    assert peer.run(read_exactly("13")) == b"child has one"
    peer.run("c.sendall(b'two')")
    parent.run("""
async def main():
    stream = SanStream(c)
    await stream.send_all(b"parent has " + await stream.receive_some(100))
trio.run(main)
""")
    assert peer.run(read_exactly("14")) == b"parent has two"


def test_what_exec_leaves_behind_holds_no_connection(pair):
    peer, parent = pair
    parent.run("import subprocess")
    parent.run("program = subprocess.Popen(['sleep', '60'], preexec_fn=lambda: None)")
    parent.run("c.close()")
    assert peer.run("c.recv(1)") == b""
    parent.run("program.kill(); program.wait()")


def test_a_non_blocking_child_waits_by_select(forked):
    peer, parent = forked
    parent.run("child.do('c.setblocking(False)')")
    assert parent.run("child.do('c.recv(1)')")[0] in ("BlockingIOError", "WsaBlockingIOError")
    parent.run("child.start('select.select([c], [], [], 20)\\nc.recv(10)')")
    peer.run("c.sendall(b'abc')")
    assert parent.run("child.result()") == b"abc"


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
class Waits(socket.socket):
    pass
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
""".replace("class Waits(socket.socket):\n    pass\n", ""),
            after="",
        )
    )
    try:
        found = [clients(port) for _ in children]
        assert {first_line(client) for client in found} == set(children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
