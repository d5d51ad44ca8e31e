"""Tickets that are not good: WSAEINVAL, nothing changes, and who should have the connection still gets it."""

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.puppet import PuppetError, until

pytestmark = pytest.mark.live
WSAEINVAL = 10022


def refused(puppet, info: bytes) -> None:
    with pytest.raises(PuppetError) as error:
        puppet.run(f"socket.fromshare({info!r})")
    assert error.value.wsa == WSAEINVAL


def redeem(puppet, info: bytes, peer) -> None:
    puppet.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
    puppet.run("c.sendall(b'here')")
    assert peer.run(read_exactly("4")) == b"here"


def test_replayed(pair, puppets):
    peer, source = pair
    target = puppets("server")
    info = source.run(f"c.share({target.pid})")
    redeem(target, info, peer)
    refused(target, info)
    refused(source, info)
    target.run("c.sendall(b'still')")
    assert peer.run(read_exactly("5")) == b"still"


@pytest.mark.parametrize("at", [0, 20, 36, 72, 76, 112, 115, 116, 130, 627])
def test_altered(pair, puppets, at):
    peer, source = pair
    target = puppets("server")
    info = source.run(f"c.share({target.pid})")
    refused(target, info[:at] + bytes([info[at] ^ 1]) + info[at + 1 :])
    redeem(target, info, peer)


def test_zero_and_truncated(pair, puppets):
    peer, source = pair
    target = puppets("server")
    info = source.run(f"c.share({target.pid})")
    refused(target, bytes(628))
    for wrong in (b"", info[:-1], info + b"\0"):
        with pytest.raises(PuppetError) as error:
            target.run(f"socket.fromshare({wrong!r})")
        assert error.value.kinds[0] == "ValueError"
        with pytest.raises(PuppetError) as below:  # past the library's own check
            target.run(f"socket.SanSocket.from_info({wrong!r})")
        assert below.value.wsa == WSAEINVAL
    redeem(target, info, peer)


def test_wrong_process_and_other_node(pair, puppets):
    peer, source = pair
    target, thief, stranger = puppets("server"), puppets("server"), puppets("client")
    info = source.run(f"c.share({target.pid})")
    for other in (thief, source, stranger):
        refused(other, info)
    redeem(target, info, peer)


def test_a_process_that_does_not_exist_is_no_target(pair, puppets):
    peer, source = pair
    gone = puppets("server")
    gone.kill()
    for pid in (gone.pid, 0, -1, 2**31):
        with pytest.raises(PuppetError) as error:
            source.run(f"c.share({pid})")
        assert error.value.wsa == WSAEINVAL, pid
    source.run("c.sendall(b'mine')")
    assert peer.run(read_exactly("4")) == b"mine"


def test_expired_gives_the_connection_back(pair, puppets):
    peer, source = pair
    target = puppets("server")
    peer.run("c.sendall(b'unread')")
    info = source.run(f"c.share({target.pid})")
    until(source, "c._call('status')['returned']")
    refused(target, info)
    assert source.run(read_exactly("6")) == b"unread"
    source.run("c.sendall(b'mine')")
    assert peer.run(read_exactly("4")) == b"mine"
