"""A whole host as one engine: the contract, and frames that are right on the outside and wrong inside."""

import random

import pytest

from fabric.wire.codec import compute_icrc
from provider.sockets_switch import events
from provider.stack import HostStack
from tests.support.contract import check_engine
from tests.support.handoff_run import SENDER, SOURCE, build

BTH_AT = 42


class Recorded:
    """A server that listens, and the frames of a client that connects, sends, and closes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        run = build(seed, 0.0)
        world, server = run.world, run.server
        self.frames: list[bytes] = []
        handle = server.handle_frame

        def record(port: int, frame: bytes, now: int) -> None:
            self.frames.append(frame)
            handle(port, frame, now)

        server.handle_frame = record
        listen(server, 0)
        client = run.client.half
        client.attach(SENDER, "", 0)
        socket = client.socket(SENDER, 2, 1, 0, 0)
        world.command("client", lambda now: client.connect(SENDER, socket.s, ("10.77.0.2", 7000), now))
        assert world.run_while(
            lambda: not any(isinstance(e, events.ChannelOpened) for n, e in run.seen if n == "client"), 10**10
        )
        for part in (b"x", b"y" * 5000, b"z" * 100):
            world.command("client", lambda now, part=part: client.send(socket.s, part, now))
            world.run_until(world.now + 20_000_000)
        world.command("client", lambda now: client.close(SENDER, socket.s, now))
        world.run_until(world.now + 20_000_000)

    def fresh(self) -> HostStack:
        """A server as it was before the first frame: same seed, same numbers."""
        stack = build(self.seed, 0.0).server
        listen(stack, 0)
        return stack


def listen(stack: HostStack, now: int) -> None:
    half = stack.half
    half.attach(SOURCE, "", now)
    listener = half.socket(SOURCE, 2, 1, 0, 0)
    half.bind(SOURCE, listener.s, ("0.0.0.0", 7000), now)
    half.listen(SOURCE, listener.s, 5, now)
    stack.settle(now)


def drain(stack: HostStack, now: int) -> list[object]:
    found: list[object] = []
    while (transmit := stack.poll_transmit(now)) is not None or (event := stack.poll_event()) is not None:
        found.append(transmit if transmit is not None else event)
    return found


@pytest.fixture(scope="module")
def recorded():
    return Recorded(3)


def test_a_replayed_conversation_is_understood(recorded):
    stack, seen = recorded.fresh(), []
    for number, frame in enumerate(recorded.frames):
        stack.handle_frame(0, frame, number * 1_000_000)
        seen += drain(stack, number * 1_000_000)
    assert any(isinstance(event, events.ConnectionWaiting) for event in seen)
    assert stack.statistics().adapter.frames_in == len(recorded.frames) > 5


def test_the_contract(recorded):
    check_engine(recorded.fresh, recorded.frames)


def with_right_icrc(frame: bytes) -> bytes:
    """The frame with its invariant CRC made right again."""
    return frame[:-4] + compute_icrc(frame[14:-4]).to_bytes(4, "little")


def test_the_helper_makes_a_right_icrc(recorded):
    assert all(with_right_icrc(frame) == frame for frame in recorded.frames)


@pytest.mark.parametrize("seed", range(40))
def test_mutated_contents_behind_a_right_icrc_never_raise(recorded, seed):
    """CM datagrams, SDP messages and transport headers with damaged fields, in and out of season."""
    rng = random.Random(seed)
    stack, now = recorded.fresh(), 0
    for frame in recorded.frames[: rng.randrange(len(recorded.frames))]:
        now += 1_000_000
        stack.handle_frame(0, frame, now)
        drain(stack, now)
    for _ in range(60):
        data = bytearray(rng.choice(recorded.frames))
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            at = rng.randrange(BTH_AT, min(len(data) - 4, BTH_AT + rng.choice((12, 40, 80, 300))))
            data[at] = rng.choice((0, 0xFF, rng.randrange(256), data[at] ^ (1 << rng.randrange(8))))
        now += rng.choice((0, 1, 1_000_000, 500_000_000))
        stack.handle_timeout(now)
        drain(stack, now)
        stack.handle_frame(0, with_right_icrc(bytes(data)), now)
        drain(stack, now)
    for _ in range(500):
        deadline = stack.poll_timeout()
        if deadline is None:
            break
        now = max(now, deadline)
        stack.handle_timeout(now)
        drain(stack, now)
    half = stack.half
    half.attach(SENDER, "", now)  # and the host still serves
    half.socket(SENDER, 2, 1, 0, 0)
    assert stack.statistics().processes == 2
