"""``wait_for_return``: told as soon as control is back, and what became of it if it does not come."""

import os
import signal

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live
MODES = ["suspend", "local"]


def works(peer, owner):
    owner.run("c.sendall(b'mine again')")
    assert peer.run(read_exactly("10")) == b"mine again"


def test_at_once_when_control_never_went_away(pair):
    peer, source = pair
    source.run("c.wait_for_return(0)")
    works(peer, source)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("moment", ["with the ticket out", "with the connection untouched"])
def test_when_the_target_dies(pair, puppets, mode, moment):
    peer, source = pair
    target = puppets("server")
    peer.run("c.sendall(b'unread')")
    info = source.run(f"c.share({target.pid}, {mode!r})")
    if "untouched" in moment:
        target.run(f"c = socket.fromshare({info!r})")
    source.start("c.wait_for_return(); c.recv(6)")
    target.kill()
    assert source.result() == b"unread"
    works(peer, source)
    again = puppets("server")  # and it can be handed on
    info = source.run(f"c.share({again.pid}, {mode!r})")
    again.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
    works(peer, again)


def test_when_the_target_closes_or_lets_the_ticket_expire(pair, puppets):
    peer, source = pair
    target = puppets("server")
    source.run(f"c.share({target.pid}); c.wait_for_return()")  # it lives 5 s; the default waits longer
    works(peer, source)
    info = source.run(f"c.share({target.pid})")
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20); c.sendall(b'target')")
    source.start("c.wait_for_return(15)")
    target.run("c.close()")
    source.result()
    assert peer.run(read_exactly("6")) == b"target"
    works(peer, source)


def test_the_time_is_up(pair, puppets):
    _, source = pair
    target = puppets("server")
    info = source.run(f"c.share({target.pid})")
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
    with pytest.raises(PuppetError) as refused:
        source.run("c.wait_for_return(0.05)")
    assert refused.value.wsa == 10022


def test_the_connection_went_with_the_target(pair, puppets):
    peer, source = pair
    target = puppets("server")
    info = source.run(f"c.share({target.pid})")
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20); c.sendall(b'x')")
    assert peer.run("c.recv(1)") == b"x"
    source.start("c.wait_for_return()")
    os.kill(target.pid, signal.SIGKILL)
    with pytest.raises(PuppetError) as gone:
        source.result()
    assert gone.value.wsa in (10053, 10054)


def test_a_blocking_socket_blocks_again_after_control_returned(pair, puppets):
    peer, source = pair
    target = puppets("server")
    source.run(f"c.settimeout(None); c.share({target.pid})")
    target.kill()
    source.run("c.wait_for_return()")
    source.start("c.recv(5)")
    peer.run("c.sendall(b'later')")
    assert source.result() == b"later"
