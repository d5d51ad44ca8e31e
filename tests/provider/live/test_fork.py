"""Descriptors inherited over fork: parent and child use them in turn, and no byte is lost or doubled."""

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live
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


def test_an_event_loop_of_a_child_that_took_control_first(forked):
    peer, parent = forked
    parent.run("""
code = '''import asyncio
async def main():
    c.take_control()
    reader, writer = await asyncio.open_connection(sock=c)
    got = b""
    while part := await reader.read(100):
        got += part
        writer.write(part)
        await writer.drain()
    writer.close()
    return got
asyncio.run(main())'''
child.start(code)
c.close()
""")
    for number in range(20):
        peer.run(f"c.sendall(b'{number:03}')")
        assert peer.run(read_exactly("3")) == b"%03d" % number
    peer.run("c.shutdown(socket.SHUT_WR)")
    assert parent.run("child.result()") == b"".join(b"%03d" % number for number in range(20))


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
