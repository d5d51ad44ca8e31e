"""Statements 127, 129 and 130: the seventeen steps, whole, in another order, and with a death in the middle."""

from itertools import groupby

import pytest

from fabric.units import SECOND
from fabric.wire.sdp import Mid, decode_header
from provider.errors import WsaErrno
from provider.sockets_switch import events
from provider.sockets_switch.transfers import MODES
from tests.support.handoff_run import SENDER, SOURCE, TARGET
from tests.support.spi_bench import error_of
from tests.support.spi_run import SpiRun

DATA = ("WSPSend", "WSPRecv", "WPUCompleteOverlappedRequest")
MEMORY = ("WSPRegisterMemory", "WSPDeregisterMemory", "WSPRegisterRdmaMemory", "WSPDeregisterRdmaMemory", "WSPIoctl")
CONNECT = [
    "WSPSocket",
    "WPUCreateSocketHandle",
    "WSPBind",
    "WSPEventSelect",
    "WSPConnect",
    "WPUSetEvent",
    "WSPEnumNetworkEvents",
]
REDEEM = ["WSPSocket", "WPUCreateSocketHandle"]
CLOSE = ["WSPCloseSocket", "WPUCloseSocketHandle"]


@pytest.fixture
def spi():
    return SpiRun()


def control_calls(spi, process):
    """What the process's provider was asked, without data and memory."""
    return [name for name in spi.names(process) if name not in (*DATA, *MEMORY)]


def there_and_back(spi, mode="suspend", order=(12, 14)):
    """Steps 1 to 15, with a word of the stream at 1, 9 and 15; (the peer's descriptor, the source's last)."""
    peer, source = spi.connected()
    spi.write(SENDER, peer, b"first")
    assert spi.read(SOURCE, source, 5) == b"first"
    taken = spi.hand_over(SOURCE, source, TARGET, mode)  # 5 to 8
    spi.write(SENDER, peer, b"then")
    assert spi.read(TARGET, taken, 4) == b"then"  # 9
    info = spi.duplicate(TARGET, taken, SOURCE, mode)  # 10
    back = None
    for step in order:
        if step == 12:
            spi.call(TARGET, "close", taken.s)
        else:
            back = spi.call(SOURCE, "redeem", info)
    spi.call(SOURCE, "close", source.s)  # 15
    spi.write(SENDER, peer, b"last")
    assert spi.read(SOURCE, back, 4) == b"last"
    return peer, back


def finish(spi, peer, back):
    """Steps 16 and 17 and the peer's end, then the clean-up of all processes; what is left on both hosts."""
    spi.call(SENDER, "close", peer.s)
    spi.pass_time()
    assert spi.half(SOURCE).peer_finished(back.s)
    spi.call(SOURCE, "close", back.s)
    spi.pass_time(10 * SECOND)
    for process in (SOURCE, TARGET, SENDER):
        spi.call(process, "detach")
    spi.pass_time(200 * SECOND)
    return nothing_left(spi)


def nothing_left(spi):
    """No reference, handle, token, endpoint or process on either host."""
    found = []
    for stack in (spi.run.client, spi.run.server):
        left = stack.statistics()
        found += [left.processes, left.sockets, left.descriptors, left.endpoints, left.parked]
        found += [len(stack.core.companions), left.registry.sockets, left.registry.tickets, stack.poll_timeout()]
    return not any(found)


def test_127_the_seventeen_steps_make_the_calls_of_the_reference_trace(spi):
    peer, back = there_and_back(spi)
    assert finish(spi, peer, back)
    cleanup = ["WSPCleanup"]
    duplicate = ["WSPDuplicateSocket"]
    assert control_calls(spi, SOURCE) == [*CONNECT, *duplicate, *REDEEM, *CLOSE, *CLOSE, *cleanup]
    assert control_calls(spi, TARGET) == [*REDEEM, *duplicate, *CLOSE, *cleanup]
    for process in (SOURCE, TARGET):
        names = [name for name, _ in groupby(spi.names(process))]
        assert names[names.index("WSPDuplicateSocket") + 1] == "WPUCompleteOverlappedRequest"
        ended = spi.trace.index(spi.named("WSPDuplicateSocket", process=process)[0])
        before = [c for c in spi.trace[:ended] if c.process == process and c.name == "WSPSend"]
        assert decode_header(before[-1].arguments[1].data).mid == Mid.SUSPEND
    calls = [c for c in spi.trace if c.process == TARGET]
    redeemed = [c.name for c in calls].index("WPUCreateSocketHandle") + 1
    receives = spi.half(SOURCE).core.config.session.receive_buffers
    assert [c.name for c in calls[redeemed : redeemed + receives - 1]] == ["WSPRecv"] * (receives - 1)
    first_word = next(c for c in calls if c.name == "WSPSend")
    assert decode_header(first_word.arguments[1].data).mid == Mid.RESUME
    last = [c for c in spi.trace if c.process == SOURCE][-receives - 1 :]
    aborted = {c.arguments[2] for c in last if c.name == "WPUCompleteOverlappedRequest"}
    assert aborted <= {int(WsaErrno.WSA_OPERATION_ABORTED)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [(12, 14), (14, 12)])
def test_129_steps_12_and_14_in_either_order(spi, mode, order):
    peer, back = there_and_back(spi, mode, order)
    core = spi.half(SOURCE).core
    assert core.controlling(back.socket) is back
    assert [d.owner.process for d in back.socket.descriptors] == [SOURCE]
    assert [len(spi.attached(process).provider) for process in (SOURCE, TARGET)] == [1, 0]
    assert core.registry.epoch(back.socket.number) == 2
    assert finish(spi, peer, back)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source_closed", [False, True])
def test_130_the_target_is_killed_between_6_and_8(spi, mode, source_closed):
    peer, source = spi.connected()
    spi.duplicate(SOURCE, source, TARGET, mode)
    if source_closed:
        spi.call(SOURCE, "close", source.s)
    spi.call(TARGET, "detach")
    spi.pass_time()
    if source_closed:  # nobody can have it: the peer hears a reset, also where it expects a new connection
        (reset,) = spi.events(events.ChannelReset)
        assert (reset.s, reset.error) == (peer.s, WsaErrno.WSAECONNRESET)
    else:  # control is back, and the stream goes on
        spi.write(SENDER, peer, b"on")
        assert spi.read(SOURCE, source, 2) == b"on"
        assert error_of(lambda: spi.call(SOURCE, "close", source.s)) == 0
    assert error_of(lambda: spi.call(SENDER, "close", peer.s)) == 0
    spi.call(SENDER, "close", spi.listener.s)
    for process in (SOURCE, SENDER):
        spi.call(process, "detach")
    spi.pass_time(200 * SECOND)
    assert nothing_left(spi)
