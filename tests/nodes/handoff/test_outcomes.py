"""Who has the connection after a death: the source, the target, or nobody and the peer is told. Never both."""

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.puppet import PuppetError, until

pytestmark = pytest.mark.live
MODES = ["suspend", "local", "rehome"]
WSAEINVAL, WSAENOBUFS = 10022, 10055


def hand_over(source, target, mode: str, extra: str = "") -> None:
    info = source.run(f"info = c.share({target.pid}, {mode!r})\ninfo")
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20){extra}")


def works(peer, owner) -> None:
    """Bytes go both ways, exactly."""
    owner.run("c.sendall(b'to the peer' * 5000)")
    assert peer.run(read_exactly("55000")) == b"to the peer" * 5000
    peer.run("c.sendall(b'from the peer' * 5000)")
    assert owner.run(read_exactly("65000")) == b"from the peer" * 5000


@pytest.mark.parametrize("mode", MODES)
def test_the_target_uses_the_connection_and_the_source_cannot(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    peer.run("c.sendall(b'before')")
    hand_over(source, target, mode)
    assert target.run(read_exactly("6")) == b"before"  # unread bytes move too
    works(peer, target)
    for attempt in ("c.recv(1)", "c.send(b'x')", "c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)"):
        with pytest.raises(PuppetError) as refused:
            source.run(attempt)
        assert refused.value.wsa == WSAEINVAL, attempt
    assert source.run("c.getpeername()") == target.run("c.getpeername()")
    source.run("c.close()")
    works(peer, target)


@pytest.mark.parametrize("mode", MODES)
def test_killed_target_before_it_redeemed_gives_the_source_its_connection_back(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    source.run("c.sendall(b'first')")
    peer.run("c.sendall(b'waiting')")
    source.run(f"c.share({target.pid}, {mode!r})")
    target.kill()
    until(source, "c._call('status')['returned']")
    assert source.run(read_exactly("7")) == b"waiting"
    assert peer.run(read_exactly("5")) == b"first"
    works(peer, source)


@pytest.mark.parametrize("mode", MODES)
def test_killed_target_that_moved_no_byte_gives_it_back_with_a_new_epoch(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    peer.run("c.sendall(b'unread' * 100)")
    hand_over(source, target, mode)
    assert source.run("c._call('status')['epoch']") == 1
    target.run("select.select([c], [], [], 20)[0] != []")  # it sees that there is something, and leaves it
    target.kill()
    until(source, "c._call('status')['returned']")
    assert source.run("c._call('status')['epoch']") == 2
    assert source.run(read_exactly("600")) == b"unread" * 100
    works(peer, source)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use", ["c.recv(1)", "c.sendall(b'x')"])
def test_killed_target_that_moved_a_byte_is_a_reset_for_peer_and_source(pair, puppets, mode, use):
    peer, source = pair
    target = puppets("server")
    peer.run("c.sendall(b'ab')")
    hand_over(source, target, mode)
    target.run(use)
    target.kill()
    with pytest.raises(PuppetError) as reset:
        peer.run("while c.recv(10): pass")
    assert "ConnectionResetError" in reset.value.kinds
    with pytest.raises(PuppetError) as gone:
        source.run("c.recv(1)")
    assert "OSError" in gone.value.kinds


@pytest.mark.parametrize("mode", MODES)
def test_killed_target_after_the_source_closed_is_a_reset(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    hand_over(source, target, mode)
    source.run("c.close()")
    target.kill()
    with pytest.raises(PuppetError) as reset:
        peer.run("c.recv(10)")
    assert "ConnectionResetError" in reset.value.kinds


@pytest.mark.parametrize("mode", MODES)
def test_killed_source_with_its_ticket_out_leaves_the_connection_to_the_target(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    source.run("c.sendall(b'last words')")
    info = source.run(f"c.share({target.pid}, {mode!r})")
    source.kill()
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
    assert peer.run(read_exactly("10")) == b"last words"
    works(peer, target)


@pytest.mark.parametrize("mode", MODES)
def test_killed_source_after_the_commit_changes_nothing(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    hand_over(source, target, mode)
    source.kill()
    works(peer, target)


def test_a_graceful_end_by_the_target_reaches_the_peer(pair, puppets):
    peer, source = pair
    target = puppets("server")
    hand_over(source, target, "suspend")
    source.run("c.close()")
    target.run("c.sendall(b'bye'); c.close()")
    assert peer.run(read_exactly("3")) == b"bye"
    assert peer.run("c.recv(1)") == b""


def test_both_ends_hand_over_at_once_and_one_is_told_to_try_again(pair, puppets):
    peer, source = pair
    targets = puppets("client"), puppets("server")
    peer.start(f"c.share({targets[0].pid})")
    source.start(f"c.share({targets[1].pid})")
    outcomes, losers = [], []
    for puppet, target in ((peer, targets[0]), (source, targets[1])):
        try:
            info = puppet.result()
        except PuppetError as error:
            losers.append(error.wsa)
            outcomes.append(puppet)
            continue
        target.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
        outcomes.append(target)
    assert losers in ([], [WSAENOBUFS])  # they need not have met
    works(*outcomes)


def test_there_and_back_many_times(pair, puppets):
    peer, source = pair
    target = puppets("server")
    owner, other = source, target
    for number in range(20):
        mode = MODES[number % 3]
        info = owner.run(f"c.share({other.pid}, {mode!r})")
        owner.run("c.close()")
        owner, other = other, owner
        owner.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
        owner.run(f"c.sendall(b'{number:04}')")
        assert peer.run(read_exactly("4")) == f"{number:04}".encode()
    assert owner.run("c._call('status')['epoch']") == 20


def test_to_oneself_is_allowed(pair):
    peer, source = pair
    source.run("old, c = c, socket.fromshare(c.share(os.getpid())); old.close(); c.settimeout(20)")
    works(peer, source)


@pytest.mark.parametrize("mode", MODES)
def test_a_lost_connection_under_two_descriptors_is_closed_once(pair, puppets, mode):
    peer, source = pair
    target = puppets("server")
    hand_over(source, target, mode)
    peer.kill()
    with pytest.raises(PuppetError) as reset:
        target.run("c.recv(1)")
    assert "ConnectionResetError" in reset.value.kinds
    target.kill()
    source.run("c.close()")
    source.run("socket.socket().close()")  # the agent lives
