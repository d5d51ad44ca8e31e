"""provider.socket on real hosts behaves as the standard library's module does."""

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live


def raises(puppet, code: str) -> PuppetError:
    with pytest.raises(PuppetError) as caught:
        puppet.run(code)
    return caught.value


def test_refused_unreachable_in_use_and_not_connected(puppets):
    server = puppets("server")
    assert "ConnectionRefusedError" in raises(server, "socket.create_connection(('client', 6999), timeout=20)").kinds
    assert raises(server, "socket.create_connection(('10.77.0.99', 1), timeout=20)").wsa in (10051, 10065)
    server.run("l = socket.create_server(('', 6998))")
    assert raises(server, "socket.create_server(('', 6998))").wsa == 10048
    assert raises(server, "socket.socket().bind(('10.77.0.1', 6997))").wsa == 10049
    for use in ("recv(1)", "send(b'x')", "shutdown(socket.SHUT_WR)", "getpeername()"):
        assert raises(server, f"socket.socket().{use}").wsa == 10057, use
    assert raises(server, "l.connect(('client', 1))").wsa in (10022, 10056)


def test_timeouts_and_non_blocking_mode(pair, puppets):
    peer, source = pair
    assert raises(source, "c.settimeout(0.02); c.recv(1)").kinds[0] == "TimeoutError"
    assert "BlockingIOError" in raises(source, "c.setblocking(False); c.recv(1)").kinds
    peer.run("c.sendall(b'x')")
    assert source.run("select.select([c], [], [], 20)[0] == [c] and c.recv(10)") == b"x"
    assert source.run("select.select([], [c], [], 20)[1] == [c]") is True
    server = puppets("server")
    server.run("l = socket.create_server(('', 6996)); l.settimeout(0.02)")
    assert raises(server, "l.accept()").kinds[0] == "TimeoutError"
    assert "BlockingIOError" in raises(server, "l.setblocking(False); l.accept()").kinds
    peer.run("""
d = socket.socket(); d.setblocking(False)
import errno
outcome = d.connect_ex(('server', 6996))
assert outcome in (0, errno.EINPROGRESS), outcome
select.select([], [d], [], 20)
assert d.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
""")
    assert server.run("select.select([l], [], [], 20)[0] == [l] and l.accept()[1][0]") == "10.77.0.1"
    assert "BlockingIOError" in raises(server, "l.accept()").kinds


def test_a_refused_non_blocking_connect_is_told_by_so_error_once(puppets):
    server = puppets("server")
    assert server.run("""
import errno
d = socket.socket(); d.setblocking(False); d.connect_ex(('client', 6995))
select.select([], [d], [], 20)
first, second = (d.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2))
[first == errno.ECONNREFUSED, second]
""") == [True, 0]


def test_half_close_both_ways(pair):
    peer, source = pair
    source.run("c.sendall(b'question'); c.shutdown(socket.SHUT_WR)")
    assert peer.run(read_exactly("8")) == b"question"
    assert peer.run("c.recv(1)") == b""
    peer.run("c.sendall(b'answer' * 1000); c.shutdown(socket.SHUT_WR)")
    assert source.run(read_exactly("6000")) == b"answer" * 1000
    assert source.run("c.recv(1)") == b""
    assert "BrokenPipeError" in raises(source, "c.send(b'more')").kinds or raises(source, "c.send(b'x')").wsa == 10058


def test_both_directions_at_once(pair):
    code = """
import hashlib
data = os.urandom(3_000_000)
def send(): c.sendall(data); c.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=send); thread.start()
heard = hashlib.sha256()
while part := c.recv(65536): heard.update(part)
thread.join()
[hashlib.sha256(data).hexdigest(), heard.hexdigest()]
"""
    peer, source = pair
    peer.start(code)
    source.start(code)
    (sent, got), (other_sent, other_got) = peer.result(), source.result()
    assert (sent, other_sent) == (other_got, got)


def test_files_and_sendfile(pair, tmp_path):
    peer, source = pair
    (tmp_path / "f").write_bytes(b"line one\nline two\nrest")
    source.run(f"assert c.sendfile(open({str(tmp_path / 'f')!r}, 'rb')) == 22; c.shutdown(socket.SHUT_WR)")
    assert peer.run("f = c.makefile('r'); [f.readline(), f.readline(), f.read()]") == [
        "line one\n",
        "line two\n",
        "rest",
    ]
    peer.run("w = c.makefile('w'); w.write('written\\n'); w.flush()")
    assert source.run("c.makefile('rb').readline()") == b"written\n"


def test_read_ahead_of_a_file_object_keeps_the_socket_from_being_shared(pair, puppets):
    peer, source = pair
    peer.run("c.sendall(b'one\\ntwo\\n')")
    source.run("f = c.makefile('rb'); f.readline()")
    refused = raises(source, "c.share(os.getpid())")
    assert (refused.wsa, "read ahead" in refused.text) == (10022, True)
    assert source.run("f.readline()") == b"two\n"
    assert source.run("d = socket.fromshare(c.share(os.getpid())); d.settimeout(20); c.close(); f.close(); 1") == 1
    peer.run("c.sendall(b'three')")
    assert source.run("d.recv(5)") == b"three"


def test_options_names_and_repr(pair):
    peer, source = pair
    assert source.run("""
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
assert c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
assert c.getpeername()[0] == "10.77.0.1" and c.getsockname()[0] == "10.77.0.2"
assert (c.family, c.type) == (socket.AF_INET, socket.SOCK_STREAM)
assert socket.gethostname() == "server" and socket.gethostbyname("client") == "10.77.0.1"
repr(c).startswith("<provider.socket.socket fd=")
""")
    assert peer.run("c.getpeername()") == source.run("c.getsockname()")
    assert raises(source, "c.setsockopt(socket.SOL_SOCKET, 9999, 1)").wsa == 10042


def test_asyncio_streams(puppets):
    server, client = puppets("server"), puppets("client")
    server.run("l = socket.create_server(('', 6994))")
    server.start("""
import asyncio
async def main():
    l.setblocking(False)
    done = asyncio.Event()
    async def handle(reader, writer):
        writer.write((await reader.readline()).upper()); await writer.drain(); writer.close(); done.set()
    async with await asyncio.start_server(handle, sock=l):
        await asyncio.wait_for(done.wait(), 20)
asyncio.run(main())
""")
    assert (
        client.run("""
import asyncio
async def main():
    s = socket.create_connection(("server", 6994), timeout=20); s.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=s)
    writer.write(b"shout\\n")
    line = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    return line
asyncio.run(main())
""")
        == b"SHOUT\n"
    )
    server.result()


def test_backlog_keeps_connections_until_they_are_accepted(puppets):
    server, client = puppets("server"), puppets("client")
    server.run("l = socket.create_server(('', 6993), backlog=5)")
    client.run("cs = [socket.create_connection(('server', 6993), timeout=20) for _ in range(4)]")
    client.run("for n, c in enumerate(cs): c.sendall(bytes([n]))")
    assert server.run("sorted(l.accept()[0].recv(1)[0] for _ in range(4))") == [0, 1, 2, 3]


def test_a_process_outside_a_lab_is_told(tmp_path):
    import os
    import subprocess
    import sys

    environment = {key: value for key, value in os.environ.items() if key != "SANLOOM_AGENT"}
    done = subprocess.run(
        [sys.executable, "-c", "from provider import socket; socket.socket()"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert "this process runs on no host of a lab (SANLOOM_AGENT is not set)" in done.stderr
