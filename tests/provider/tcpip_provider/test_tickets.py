"""Duplicates of kernel sockets: who gets them, how often, and what is left when something goes wrong."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provider.errors import WsaErrno, WsaError
from provider.protocol_info import SIZE, WSAPROTOCOL_INFOW
from provider.tcpip_provider import duplication
from provider.tcpip_provider.duplication import duplicate, redeem, tickets_out
from tests.support.labs import wait_until
from tests.support.puppet import PuppetError
from tests.support.spi_processes import descriptors, rendezvous_name, rendezvous_names, start_process

SECONDS = 20.0


@pytest.fixture
def pair():
    """Two connected TCP sockets of this process; afterwards no ticket, thread, descriptor or name is left."""
    wait_until(lambda: not tickets_out() and threading.active_count() == 1)
    before = descriptors(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), timeout=SECONDS)
        far, _ = listener.accept()
    near.settimeout(None)
    far.settimeout(SECONDS)
    with near, far:
        yield near, far
    wait_until(lambda: not tickets_out() and threading.active_count() == 1)
    assert descriptors(os.getpid()) == before


@pytest.fixture
def process():
    started = start_process()
    yield started
    started.close()


def error_of(call):
    with pytest.raises(WsaError) as caught:
        call()
    return caught.value.wsa


def refused(process, info):
    with pytest.raises(PuppetError) as caught:
        process.run("redeem(info)", info=info.pack())
    return caught.value.wsa


def take(info):
    """The socket that a ticket stands for."""
    return redeem(info, lambda fd: socket.socket(fileno=fd))


def test_a_ticket_is_good_once(pair):
    near, far = pair
    info = duplicate(near, os.getpid())
    assert rendezvous_name(info.pack()) in rendezvous_names()
    with take(info) as twin:
        assert tickets_out() == 0
        assert error_of(lambda: take(info)) == WsaErrno.WSAEINVAL
        near.close()
        twin.sendall(b"mine")
        assert far.recv(4) == b"mine"
    assert far.recv(1) == b""


def test_the_structure_describes_the_socket():
    for family, kind, numbers in (
        (socket.AF_INET, socket.SOCK_STREAM, (2, 1, 6)),
        (socket.AF_INET, socket.SOCK_DGRAM, (2, 2, 17)),
        (socket.AF_INET6, socket.SOCK_STREAM, (23, 1, 6)),
        (socket.AF_INET6, socket.SOCK_DGRAM, (23, 2, 17)),
    ):
        with socket.socket(family, kind) as sock:
            info = duplicate(sock, os.getpid())
            packed = info.pack()
            assert len(packed) == SIZE
            assert (info.iAddressFamily, info.iSocketType, info.iProtocol) == numbers
            assert info.dwProviderReserved
            assert info.protocol_name.startswith("MSAFD Tcpip [")
            with take(WSAPROTOCOL_INFOW.unpack(packed)) as twin:
                assert (twin.family, twin.type) == (family, kind)


def test_only_the_named_process_gets_it_and_others_do_not_spoil_it(pair, process):
    near, far = pair
    info = duplicate(near, os.getpid())
    assert refused(process, info) == WsaErrno.WSAEINVAL
    other = duplicate(near, process.pid)
    assert error_of(lambda: take(other)) == WsaErrno.WSAEINVAL
    with take(info) as twin:
        twin.sendall(b"one")
    process.run("s = redeem(info)", info=other.pack())
    process.run("t.WSPSend(s, b'two')")
    assert far.recv(3) + far.recv(3) == b"onetwo"


@pytest.mark.parametrize("place", [0, 20, 36, 76, 113, 116, 400, SIZE - 28, SIZE - 12, SIZE - 1])
def test_no_byte_may_change_and_trying_does_not_spoil_it(pair, place):
    info = duplicate(pair[0], os.getpid())
    altered = bytearray(info.pack())
    altered[place] ^= 1
    assert error_of(lambda: take(WSAPROTOCOL_INFOW.unpack(bytes(altered)))) == WsaErrno.WSAEINVAL
    take(info).close()


def test_a_catalogue_entry_is_no_ticket():
    from provider.catalog import SAN_ENTRY, TCPIP_ENTRY

    for entry in (TCPIP_ENTRY.info, SAN_ENTRY.duplicate(7), TCPIP_ENTRY.duplicate(7), WSAPROTOCOL_INFOW()):
        assert error_of(lambda entry=entry: take(entry)) == WsaErrno.WSAEINVAL


def test_it_expires_and_gives_its_reference_up(pair):
    near, far = pair
    info = duplicate(near, os.getpid(), lifetime=0.05)
    near.close()
    assert far.recv(1) == b""  # the ticket was the last descriptor
    assert error_of(lambda: take(info)) == WsaErrno.WSAEINVAL
    wait_until(lambda: rendezvous_name(info.pack()) not in rendezvous_names())


def test_it_ends_with_the_process_that_it_was_for(pair, process):
    near, far = pair
    duplicate(near, process.pid, lifetime=600.0)
    near.close()
    process.kill()
    assert far.recv(1) == b""


def test_a_target_that_cannot_register_it_may_try_again(pair):
    info = duplicate(pair[0], os.getpid())

    def fail(_fd):
        raise KeyError("no handle")

    with pytest.raises(KeyError):
        redeem(info, fail)
    assert tickets_out() == 1
    take(info).close()


def test_a_target_without_a_descriptor_left_may_try_again(pair, process):
    info = duplicate(pair[0], process.pid)
    process.run("""
import resource
used = max(int(n) for n in os.listdir("/proc/self/fd"))
before = resource.getrlimit(resource.RLIMIT_NOFILE)
fill = [os.dup(0) for _ in range(used + 1 - len(os.listdir("/proc/self/fd")) + 1)]
def limit(room):
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + room, before[1]))
""")
    found = set()
    for room in range(1, 5):  # at first there is none for the connection, then none for what looks at it, ...
        try:
            process.run(f"limit({room}); s = redeem(info)", info=info.pack())
        except PuppetError as error:
            found.add(error.wsa)
            process.run("resource.setrlimit(resource.RLIMIT_NOFILE, before)")
        else:
            break
    else:
        process.run("s = redeem(info)", info=info.pack())
    assert found == {WsaErrno.WSAEMFILE}
    process.run("resource.setrlimit(resource.RLIMIT_NOFILE, before); t.WSPSend(s, b'got it')")
    assert pair[1].recv(6) == b"got it"


def test_its_errors_are_the_documented_ones(pair, monkeypatch):
    near, _ = pair
    assert error_of(lambda: duplicate(near, 0)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: duplicate(near, 0xFFFF_FFFF)) == WsaErrno.WSAEINVAL
    closed = socket.socket()
    closed.close()
    assert error_of(lambda: duplicate(closed, os.getpid())) == WsaErrno.WSAENOTSOCK
    with socket.socket(socket.AF_UNIX) as local:
        assert error_of(lambda: duplicate(local, os.getpid())) == WsaErrno.WSAEINVAL
    monkeypatch.setattr(duplication, "TICKETS_MAX", 1)
    info = duplicate(near, os.getpid())
    assert error_of(lambda: duplicate(near, os.getpid())) == WsaErrno.WSAENOBUFS
    take(info).close()
    near.sendall(b"usable")
    assert pair[1].recv(6) == b"usable"


def test_a_source_without_descriptors(process):
    process.run("""
import resource
s = tcp()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
fill = [os.dup(0)]
while fill[-1] < max(map(int, os.listdir("/proc/self/fd"))) - 1:  # (the last is the directory's)
    fill.append(os.dup(0))
""")
    before = len(descriptors(process.pid))
    for room in range(1, 8):  # none for the duplicate, then none for a look at the target, for the rendezvous, ...
        with pytest.raises(PuppetError) as caught:
            process.run(f"""
resource.setrlimit(resource.RLIMIT_NOFILE, (fill[-1] + {room}, limits[1]))
try: t.WSPDuplicateSocket(s, {os.getpid()})
finally: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
1 / 0  # there was room
""")
        if caught.value.kinds[0] == "ZeroDivisionError":
            break
        assert caught.value.wsa == WsaErrno.WSAEMFILE
        assert len(descriptors(process.pid)) == before
    assert room == 4


def test_strangers_at_the_rendezvous_do_not_keep_the_target_out(pair, process):
    near, far = pair
    info = duplicate(near, os.getpid())
    process.run(
        """
strangers = []
for _ in range(10):
    strangers.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    strangers[-1].connect(name)
""",
        name=rendezvous_name(info.pack()).replace("@", "\0"),
    )
    with take(info) as twin:
        twin.sendall(b"in")
    assert far.recv(2) == b"in"
    assert set(process.run("[stranger.recvmsg(10, 100)[0].decode() for stranger in strangers]")) <= {"R"}


def test_another_process_at_the_rendezvous_is_not_asked(pair, process):
    info = duplicate(pair[0], os.getpid(), lifetime=0.01)
    wait_until(lambda: not tickets_out())
    process.run(
        "l = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); l.bind(name); l.listen()",
        name=rendezvous_name(info.pack()).replace("@", "\0"),
    )
    assert error_of(lambda: take(info)) == WsaErrno.WSAEINVAL


def test_a_frozen_source_does_not_hold_the_target_for_ever(pair, process, monkeypatch):
    monkeypatch.setattr(duplication, "PATIENCE", 0.1)
    packed = process.run(f"""
s = tcp()
t.WSPDuplicateSocket(s, {os.getpid()}).pack()""")
    process.stop()
    os.waitpid(process.pid, os.WUNTRACED)  # all its threads have stopped
    assert error_of(lambda: take(WSAPROTOCOL_INFOW.unpack(packed))) == WsaErrno.WSAENETDOWN


def test_a_child_holds_neither_the_socket_nor_the_rendezvous(pair, process):
    process.run("s = tcp(); t.WSPConnect(s, address)", address=_listening(pair))
    peer, _ = pair[1].accept()
    with peer:
        peer.settimeout(SECONDS)
        packed = process.run(f"""
info = t.WSPDuplicateSocket(s, {os.getpid()}).pack()
t.WSPCloseSocket(s)
child = os.fork()
if not child:
    signal.pause()
info""")
        take(WSAPROTOCOL_INFOW.unpack(packed)).close()
        assert peer.recv(1) == b""
        wait_until(lambda: rendezvous_name(packed) not in rendezvous_names())
        process.run("os.kill(child, signal.SIGKILL); os.waitpid(child, 0)")


def _listening(pair):
    """The second socket of the pair becomes a listener."""
    pair[1].close()
    listener = socket.create_server(("127.0.0.1", 0))
    pair[1].__init__(fileno=listener.detach())
    return pair[1].getsockname()


SOURCE_THAT_ENDS = """
import os, socket, sys
from provider.tcpip_provider.duplication import duplicate
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
os.write(1, duplicate(connection, os.getppid()).pack())
connection.close()
"""


def test_a_source_that_ends_in_good_order_waits_for_its_target(pair):
    _, port = _listening(pair)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    source = subprocess.Popen(
        [sys.executable, "-c", SOURCE_THAT_ENDS, str(port)], stdout=subprocess.PIPE, env=environment
    )
    with source:
        packed = source.stdout.read(SIZE)
        peer, _ = pair[1].accept()
        with peer, take(WSAPROTOCOL_INFOW.unpack(packed)) as twin:
            assert source.wait(SECONDS) == 0
            twin.sendall(b"alone")
            assert peer.recv(5) == b"alone"
