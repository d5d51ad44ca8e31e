"""Sockets of the operating system in the drop-in: shared between processes, and tried when the SAN has no listener."""

import socket

import pytest

from provider.errors import WsaErrno
from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live
SECONDS = 20.0


@pytest.fixture
def listener():
    """A listener of the operating system at the loopback, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(SECONDS)
        yield made, made.getsockname()[1]


def raises(puppet, code, **names):
    with pytest.raises(PuppetError) as caught:
        puppet.run(code, **names)
    return caught.value


KIND = "type({0}).__name__"


def test_a_stream_is_used_by_two_processes_at_once(puppets):
    source, target = puppets("server"), puppets("server")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as made:
        source.run("c = socket.socket(socket.AF_INET6); c.connect(address)", address=made.getsockname())
        peer, _ = made.accept()
    with peer:
        peer.settimeout(SECONDS)
        info = source.run(f"c.share({target.pid})")
        assert len(info) == 628
        target.run("c = socket.fromshare(info)", info=info)
        assert target.run("[type(c).__name__, c.family.name, c.type.name, c.gettimeout()]") == [
            *("SystemSocket", "AF_INET6", "SOCK_STREAM", None)
        ]
        for process in (source, target, source):
            peer.sendall(b"q")
            assert process.run("c.recv(1)") == b"q"
            process.run("c.sendall(b'a')")
            assert peer.recv(1) == b"a"
        assert raises(target, "socket.fromshare(info)", info=info).wsa == WsaErrno.WSAEINVAL
        source.run("c.close()")
        target.run("c.sendall(b'z')")
        assert peer.recv(1) == b"z"
        target.run("c.close()")
        assert peer.recv(1) == b""


def test_datagrams_and_listeners_are_shared_too(puppets):
    source, target = puppets("server"), puppets("server")
    port = source.run("""
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0))
l = socket.create_server(("::1", 0), family=socket.AF_INET6)
u.getsockname()[1]""")
    target.run("u = socket.fromshare(info)", info=source.run(f"u.share({target.pid})"))
    target.run("l = socket.fromshare(info)", info=source.run(f"l.share({target.pid})"))
    source.run("u.close(); l.close()")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"datagram", ("127.0.0.1", port))
    assert target.run("u.recv(100)") == b"datagram"
    address = tuple(target.run("l.getsockname()"))
    with socket.create_connection(address[:2], timeout=SECONDS) as client:
        target.run("c, _ = l.accept(); c.sendall(b'served'); c.close()")
        assert client.recv(6) == b"served"


def test_a_socket_with_a_timeout_is_shared_in_non_blocking_mode(puppets):
    source, target = puppets("server"), puppets("server")
    info = source.run(f"u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.settimeout(5); u.share({target.pid})")
    assert target.run("u = socket.fromshare(info); u.gettimeout()", info=info) == 0.0


def test_nothing_else_is_shared(puppets):
    server = puppets("server")
    assert raises(server, "socket.socketpair()[0].share(os.getpid())").wsa == WsaErrno.WSAEINVAL
    closed = "d = socket.socket(socket.AF_INET6); d.close(); d.share(os.getpid())"
    assert raises(server, closed).wsa == WsaErrno.WSAENOTSOCK


def test_the_host_itself_is_tried_over_tcpip_when_nobody_listens_on_the_san(lab, puppets, listener):
    server = puppets("server")
    made, port = listener
    server.run("""
d = socket.socket(); d.settimeout(20); d.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
d.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, __import__("struct").pack("ii", 1, 0)); number = d.fileno()
""")
    assert server.run(KIND.format("d")) == "SanSocket"
    server.run("d.connect(('localhost', port))", port=port)
    assert server.run(KIND.format("d")) == "SystemSocket"
    assert lab.ask("server", "ps")["sockets"] == []
    assert server.run("[d.fileno() == number, d.gettimeout(), d.getpeername()[1]]") == [True, 20, port]
    assert server.run("bool(d.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))") is True
    peer, _ = made.accept()
    with peer:
        server.run("d.sendall(b'over tcp')")
        assert peer.recv(8) == b"over tcp"
        target = puppets("server")
        target.run("d = socket.fromshare(info)", info=server.run(f"d.share({target.pid})"))
        server.run("d.close()")
        target.run("d.settimeout(20); d.sendall(b'shared')")
        assert peer.recv(6) == b"shared"
        target.run("d.close()")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)  # SO_LINGER of the first process went along


def test_a_listener_on_the_san_comes_first(puppets, listener):
    server = puppets("server")
    _, port = listener
    server.run("l = socket.create_server(('', port)); d = socket.socket(); d.settimeout(20)", port=port)
    server.run("d.connect(('127.0.0.1', port)); e, _ = l.accept(); d.sendall(b'san')", port=port)
    assert server.run(KIND.format("d")) == "SanSocket"
    assert server.run("e.recv(3)") == b"san"


def test_when_both_refuse_or_the_socket_has_a_name_it_stays_where_it_was(puppets, listener):
    server = puppets("server")
    made, port = listener
    named = "n = socket.socket(); n.settimeout(20); n.bind(('', 0)); n.connect(('127.0.0.1', port))"
    assert "ConnectionRefusedError" in raises(server, named, port=port).kinds
    assert server.run(KIND.format("n")) == "SanSocket"
    made.close()
    refused = "d = socket.socket(); d.settimeout(20); d.connect(('127.0.0.1', port))"
    assert "ConnectionRefusedError" in raises(server, refused, port=port).kinds
    assert server.run(KIND.format("d")) == "SanSocket"


def test_a_refusal_by_another_host_is_final(puppets):
    server = puppets("server")
    server.run("""
from provider.client.leaving import Leaver
tried = []
Leaver._connect_over_tcpip = lambda self, name: tried.append(name)
""")
    for host, times in (("client", 0), ("127.0.0.1", 1)):
        refused = raises(server, "d = socket.socket(); d.settimeout(20); d.connect((host, 6999))", host=host)
        assert "ConnectionRefusedError" in refused.kinds
        assert server.run("len(tried)") == times
