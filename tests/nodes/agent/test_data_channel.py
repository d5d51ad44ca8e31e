"""The data channel on its own: not writable before it is open, exact when it is revoked, dead afterwards."""

import contextlib
import os
import random
import select
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.agent.data_channel import DataChannel


@pytest.fixture
def channel():
    made = DataChannel()
    yield made
    if not made.closed:
        made.close()


def process_end(channel: DataChannel, *, blocking: bool = False) -> socket.socket:
    """What a process would have been given: another descriptor of the same open file."""
    end = socket.socket(fileno=os.dup(channel.process_end.fileno()))
    end.setblocking(blocking)
    return end


def is_writable(end: socket.socket) -> bool:
    return bool(select.select([], [end], [], 0)[1])


def test_writable_only_once_open_and_nothing_from_before_is_heard(channel):
    with process_end(channel) as end:
        assert not is_writable(end)
        with pytest.raises(BlockingIOError):
            end.send(b"x")
        channel.open()
        assert is_writable(end)
        end.send(b"first")
        assert channel.take(100) == b"first"
        assert channel.take(100) is None


def test_each_waiting_connection_is_one_byte(channel):
    with process_end(channel) as end:
        assert not select.select([end], [], [], 0)[0]
        for _ in range(3):
            channel.signal_waiting()
        assert end.recv(10) == b"\x01\x01\x01"


def test_the_end_of_either_direction(channel):
    with process_end(channel) as end:
        channel.open()
        assert channel.give(b"last") == 4
        channel.show_end()
        assert (end.recv(10), end.recv(10)) == (b"last", b"")
        end.send(b"ours")
        channel.finish_sending()
        assert (channel.take(10), channel.take(10)) == (b"ours", b"")


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_revocation_is_exact_against_a_process_that_reads_and_writes_meanwhile(seed, blocking):
    rng = random.Random(seed)
    channel = DataChannel()
    channel.open()
    stream = rng.randbytes(400_000)
    end = process_end(channel, blocking=blocking)
    read, written, started = [], [0], threading.Event()

    def process() -> None:
        own = random.Random(seed)
        started.set()
        try:
            while True:
                try:
                    part = end.recv(own.randrange(1, 9000))
                    if not part:
                        break
                    read.append(part)
                except BlockingIOError:
                    pass
                if not blocking:
                    try:
                        written[0] += end.send(b"w" * own.randrange(1, 3000), socket.MSG_NOSIGNAL)
                    except BlockingIOError:
                        pass
        except OSError:
            pass

    thread = threading.Thread(target=process)
    thread.start()
    started.wait(10)
    given, taken = 0, b""
    for _ in range(rng.randrange(1, 60)):
        given += channel.give(stream[given : given + rng.randrange(1, 20_000)])
        if rng.random() < 0.7:
            taken += channel.take(100_000) or b""
    found = channel.revoke()
    thread.join(20)
    assert not thread.is_alive()
    end.close()
    assert b"".join(read) + found.unread == stream[:given], f"seed {seed}"
    assert len(taken) + len(found.accepted) == written[0], f"seed {seed}"


def test_a_stale_descriptor_reads_the_end_or_a_reset_and_cannot_write(channel):
    with process_end(channel) as end:
        channel.open()
        channel.give(b"unread")
        end.send(b"accepted")
        found = channel.revoke()
        assert (found.accepted, found.unread, found.finished) == (b"accepted", b"unread", False)
        with pytest.raises(ConnectionResetError):  # a byte of its was left in the kernel on purpose
            end.recv(10)
        with pytest.raises(BrokenPipeError):
            end.send(b"x", socket.MSG_NOSIGNAL)


def test_a_process_that_had_finished_is_told_apart(channel):
    with process_end(channel) as end:
        channel.open()
        end.send(b"bye")
        end.shutdown(socket.SHUT_WR)
        found = channel.revoke()
        assert (found.accepted, found.finished) == (b"bye", True)


def test_reset_comes_after_what_was_given(channel):
    with process_end(channel, blocking=True) as end:
        channel.open()
        channel.give(b"before")
        channel.reset()
        assert end.recv(10) == b"before"
        with pytest.raises(ConnectionResetError):
            end.recv(10)


def test_a_process_that_never_reads_cannot_hold_the_agent(channel):
    with process_end(channel, blocking=True) as end:
        channel.open()
        while channel.give(bytes(65_536)):
            pass
        channel.take(1)
        found = channel.revoke()
        assert len(found.unread) > 65_536
        assert end.fileno() != -1


def test_urgent_bytes_are_bytes_like_others(channel):
    """MSG_OOB must neither be lost nor leave the agent with an end that is readable and gives nothing."""
    with process_end(channel) as end:
        channel.open()
        end.send(b"a")
        end.send(b"b", socket.MSG_OOB)
        end.send(b"c")
        heard = b""
        while part := channel.take(100):
            heard += part
        assert heard == b"abc"
        assert not select.select([channel.agent_end], [], [], 0)[0]
        end.send(b"d", socket.MSG_OOB)
        end.send(b"e", socket.MSG_OOB)
        assert channel.revoke().accepted == b"de"


def test_a_process_that_writes_all_the_time_keeps_nobody_in_open(channel):
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                end.send(b"x" * 2048, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass

    with process_end(channel) as end:
        thread = threading.Thread(target=write)
        thread.start()
        channel.open()
        stop.set()
        thread.join()


def test_more_than_an_honest_process_can_have_written_is_an_overflow(channel):
    with process_end(channel) as end:
        channel.open()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 20)
        written = 0
        try:
            while True:
                written += end.send(b"x" * 65_536)
        except BlockingIOError:
            pass
        found = channel.revoke()
        assert found.overflow == (written > 1 << 20)
        assert len(found.accepted) <= (1 << 20) + (1 << 18) + 1


def test_an_honest_process_never_overflows(channel):
    with process_end(channel) as end:
        channel.open()
        written = 0
        try:
            while True:
                written += end.send(b"x" * 65_536)
        except BlockingIOError:
            pass
        found = channel.revoke()
        assert (len(found.accepted), found.overflow) == (written, False)


def test_a_detached_channel_that_somebody_writes_into_can_be_revoked(channel):
    """The process's end lives on in other hands; after the revocation it cannot be written into."""
    with process_end(channel) as end:
        channel.open()
        channel.detach()
        end.send(b"last")
        assert channel.revoke().accepted == b"last"
        with pytest.raises(OSError, match=r"reset|pipe"):
            end.send(b"x")


def test_a_reset_of_a_detached_channel_is_told_and_the_closing_of_it_still_heard(channel):
    end = process_end(channel)
    channel.open()
    channel.detach()
    channel.reset()
    assert end.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        end.send(b"x")
    with select.epoll() as hang_up:
        hang_up.register(channel.agent_end, select.EPOLLET)
        hang_up.poll(0)
        assert hang_up.poll(0) == []
        end.close()
        assert hang_up.poll(0)
    channel.close()


_AGENT = ("open", "give", "take", "under_way", "signal_waiting", "show_end", "finish_sending", "detach")
_ENDS = ("revoke", "reset", "close")
_PROCESS = ("write", "read", "shut", "leave")


@given(st.lists(st.sampled_from(_AGENT + _PROCESS), max_size=12), st.sampled_from(_ENDS))
def test_no_order_of_deeds_raises(deeds, end):
    """Whatever the process does with its end, also once it is its alone, the agent's calls go through."""
    channel = DataChannel()
    process = socket.socket(fileno=os.dup(channel.process_end.fileno()))
    for deed in deeds:
        with contextlib.suppress(OSError):
            if deed == "write":
                process.send(bytes(5000), socket.MSG_DONTWAIT)
            elif deed == "read":
                process.recv(1000, socket.MSG_DONTWAIT)
            elif deed == "shut":
                process.shutdown(socket.SHUT_RDWR)
            elif deed == "leave":
                process.close()
        if deed == "give":
            channel.give(b"x" * 3000)
        elif deed == "take":
            channel.take(1000)
        elif deed in _AGENT:
            getattr(channel, deed)()
    getattr(channel, end)()
    channel.close()
    process.close()
