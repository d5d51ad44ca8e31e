"""Statements 8 to 14, 32, 37, 42 and 52: which provider serves a socket, on two simulated hosts watched at the SPI."""

from dataclasses import replace

import pytest

from fabric.units import SECOND
from provider import constants as c
from provider.catalog import SAN_ENTRY, TCPIP_ENTRY
from provider.errors import WsaErrno
from provider.sockets_switch import events
from tests.support.handoff_run import SENDER, SOURCE, TARGET, build
from tests.support.spi_bench import error_of
from tests.support.spi_run import CLIENT_IP, SERVER_IP, SpiRun

SAN, TCPIP = SAN_ENTRY.info.ProviderId, TCPIP_ENTRY.info.ProviderId


@pytest.fixture
def spi():
    return SpiRun()


@pytest.fixture
def bare():
    """Hosts whose list "TCP on SAN" names another provider than ours."""
    return SpiRun(tcp_on_san=(TCPIP,))


def install(spi, process):
    spi.world.command(spi.node(process), lambda now: spi.half(process).install_provider(SAN, now))


def cut_off(spi):
    for link in spi.world.link_models().values():
        link.configure(replace(link.settings, loss=1.0), spi.world.now)


def test_008_every_process_cleans_the_provider_up_when_it_ends(spi):
    """TCP/IP's part is the operating system's, which closes the sockets of a process that ends."""
    spi.connected()
    for process in (SOURCE, TARGET, SENDER):
        spi.call(process, "detach")
    spi.pass_time(100 * SECOND)
    assert {call.process: call.error for call in spi.named("WSPCleanup")} == {SOURCE: 0, TARGET: 0, SENDER: 0}
    assert all(spi.names(process)[-1] == "WSPCleanup" for process in (SOURCE, TARGET, SENDER))


def test_011_a_provider_that_is_not_in_the_list_is_not_used(bare):
    spi = bare
    listener = spi.listening()
    made = spi.call(SOURCE, "socket", 2, 1, 0)
    assert error_of(lambda: spi.call(SOURCE, "connect", made.s, (CLIENT_IP, 7000))) == WsaErrno.WSAENETUNREACH
    assert error_of(lambda: spi.call(SENDER, "accept", listener.s)) == WsaErrno.WSAEWOULDBLOCK
    for process in (SOURCE, TARGET, SENDER):
        spi.call(process, "detach")
    spi.pass_time()
    assert spi.trace == []
    assert spi.run.server.statistics().processes == 0


def test_012_a_provider_that_is_installed_later_listens_for_every_wildcard_listener(bare):
    spi = bare
    listeners = [spi.listening(SENDER, "0.0.0.0", port) for port in (7000, 7001)]
    spi.listening(SENDER, CLIENT_IP, 7002)
    moved = spi.hand_over(SENDER, listeners[1], SENDER)
    assert spi.trace == []
    install(spi, SENDER)
    asked = [call for call in spi.trace if call.process == SENDER and call.name not in ("WSPStartupEx", "WSPIoctl")]
    assert [call.name for call in asked[:2]] == ["WSPSocket", "WSPCloseSocket"]  # the question for addresses
    assert [call.name for call in asked[2:]] == ["WSPSocket", "WSPBind", "WSPListen", "WSPEventSelect"] * 2
    assert [call.arguments[1] for call in spi.named("WSPBind")] == [("0.0.0.0", 7000), ("0.0.0.0", 7001)]
    before = len(spi.trace)
    install(spi, SENDER)
    assert len(spi.trace) == before
    install(spi, SOURCE)
    for port, listener in ((7000, listeners[0]), (7001, moved)):
        made = spi.connecting(SOURCE, (CLIENT_IP, port))
        spi.pass_time()
        accepted = spi.call(SENDER, "accept", listener.s)
        spi.write(SOURCE, made, b"now")
        assert spi.read(SENDER, accepted, 3) == b"now"


def test_013_the_addresses_are_asked_for_at_the_start():
    run = build(1, 0.0)
    attached = run.server.half.attach(SOURCE, "", 0)
    names = [name for name in attached.log.counts if attached.log.counts[name]]
    assert {"WSPStartupEx", "WSPSocket", "WSPIoctl", "WSPCloseSocket"} <= set(names)
    assert attached.log.counts["WSPIoctl"] == 1
    assert run.server.core.routing.addresses == (SERVER_IP,)
    assert len(attached.provider) == 0  # the socket that asked is gone
    assert run.server.core.companions == {}


def test_013_the_provider_tells_its_addresses_and_knows_no_other_ioctl(bench):
    instance = bench.instance("a")
    s = instance.socket()
    assert instance.table.WSPIoctl(s, c.SIO_ADDRESS_LIST_QUERY, b"", 0) == ("10.0.0.1",)
    assert error_of(lambda: instance.table.WSPIoctl(s, c.FIONBIO, b"", 0)) == WsaErrno.WSAEOPNOTSUPP
    assert error_of(lambda: instance.table.WSPIoctl(999, c.SIO_ADDRESS_LIST_QUERY, b"", 0)) == WsaErrno.WSAENOTSOCK


@pytest.mark.parametrize("elsewhere", ["192.0.2.1", "10.78.0.1", "8.8.8.8"])
def test_014_a_destination_off_the_san_makes_no_san_socket(spi, elsewhere):
    made = spi.call(SOURCE, "socket", 2, 1, 0)
    assert error_of(lambda: spi.call(SOURCE, "connect", made.s, (elsewhere, 7000))) == WsaErrno.WSAENETUNREACH
    assert spi.trace == []
    spi.listening()
    spi.call(SOURCE, "connect", made.s, (CLIENT_IP, 7000))  # the socket is as it was
    spi.run.wait(events.ChannelOpened)


@pytest.mark.parametrize("call", ["WSPSocket", "WSPBind", "WSPSetSockOpt"])
@pytest.mark.parametrize("what", ["connect", "listen"])
def test_032_a_companion_that_cannot_be_made_is_closed(spi, call, what):
    """The rule here: the error is the application's (decision 9: there is no TCP/IP between hosts of the fabric)."""
    spi.listening()
    made = spi.call(SOURCE, "socket", 2, 1, 0)
    spi.call(SOURCE, "set_option", made.s, c.SOL_SOCKET, c.SO_DEBUG, 1)
    spi.call(SOURCE, "bind", made.s, ("0.0.0.0", 7600))
    arguments = ((CLIENT_IP, 7000),) if what == "connect" else (5,)
    spi.failing[call] = WsaErrno.WSAENOBUFS
    assert error_of(lambda: spi.call(SOURCE, what, made.s, *arguments)) == WsaErrno.WSAENOBUFS
    names = spi.names(SOURCE)
    assert names[-3:] == (["WSPSocket"] if call == "WSPSocket" else [call, "WSPCloseSocket", "WPUCloseSocketHandle"])
    assert len(spi.attached(SOURCE).provider) == 0
    spi.failing.clear()
    spi.call(SOURCE, "close", made.s)
    assert spi.listening(SOURCE, port=7600)  # the port is free again


def test_037_a_connect_that_fails_closes_its_companion_and_tries_nothing_else(spi):
    """The rule here: as for statement 32."""
    spi.listening()
    cut_off(spi)
    made = spi.connecting()
    spi.pass_time(200 * SECOND)
    (failed,) = spi.events(events.ConnectFailed)
    assert (failed.s, failed.error) == (made.s, WsaErrno.WSAETIMEDOUT)
    assert spi.names(SOURCE)[-2:] == ["WSPCloseSocket", "WPUCloseSocketHandle"]
    assert spi.count(SOURCE)["WSPConnect"] == 1
    assert spi.call(SOURCE, "get_option", made.s, c.SOL_SOCKET, c.SO_ERROR) == WsaErrno.WSAETIMEDOUT
