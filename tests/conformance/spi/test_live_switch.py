"""Statements 14, 42, 52 and 97 on real hosts of a lab."""

import json
import socket as stdlib
from contextlib import closing

import pytest

from tests.nodes.handoff.conftest import lab, pair, puppets, read_exactly
from tests.support.puppet import PuppetError

__all__ = ["lab", "pair", "puppets"]
pytestmark = pytest.mark.live


def spi_records(lab, host, pid):
    """Names of the SPI calls in the host's journal that a process made."""
    lines = (lab.run_directory / f"{host}.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines if '"spi.' in line]
    return [record["event"].removeprefix("spi.") for record in records if record["pid"] == pid]


def own_address():
    """An address of this machine that is not its loopback's."""
    with closing(stdlib.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but its loopback's")
        return probe.getsockname()[0]


def test_014_a_destination_off_the_san_is_tcpips(lab, puppets):
    process = puppets("server")
    with closing(stdlib.create_server((own_address(), 0))) as listener:
        address = listener.getsockname()
        process.run(f"c = socket.create_connection({address!r}, timeout=20); c.sendall(b'over TCP/IP')")
        accepted, _ = listener.accept()
        with closing(accepted):
            process.run("c.close()")
            assert accepted.recv(100, stdlib.MSG_WAITALL) == b"over TCP/IP"
    until_told = ["WSPStartupEx", "WSPSocket", "WPUCreateSocketHandle", "WSPIoctl", "WSPCloseSocket"]
    assert set(spi_records(lab, "server", process.pid)) <= {*until_told, "WPUCloseSocketHandle"}
    assert spi_records(lab, "server", process.pid).count("WSPSocket") == 1  # the question for addresses


def test_042_and_052_a_listener_of_the_san_takes_connections_from_the_fabric_alone(puppets):
    """The rule here (decision 9): the machine's TCP/IP has no port of a host."""
    caller, process = puppets("client"), puppets("server")
    port = process.run("l = socket.create_server(('', 0)); l.settimeout(20); l.getsockname()[1]")
    for host in ("127.0.0.1", own_address()):
        with closing(stdlib.socket()) as probe:
            assert probe.connect_ex((host, port)) != 0
    caller.run(f"c = socket.create_connection(('server', {port}), timeout=20)")
    assert process.run("l.accept()[1][0]") == "10.77.0.1"


def test_097_a_suspended_peer_waits_or_is_told_to(pair, puppets):
    peer, source = pair
    target = puppets("server")
    info = source.run(f"c.share({target.pid}, 'suspend')")
    with pytest.raises(PuppetError) as would_block:
        peer.run("c.setblocking(False); c.recv(1)")
    assert would_block.value.wsa == 10035 or "BlockingIOError" in would_block.value.kinds
    limit = peer.run("limit = c.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF); limit")
    taken = peer.run("""
sent = 0
while select.select([], [c], [], 3 if sent < limit else 0.3)[1]:
    try: sent += c.send(bytes(65536))
    except BlockingIOError: pass
sent
""")
    assert taken >= limit  # and what the channel to the agent holds
    assert taken < 2 * limit
    peer.run("c.settimeout(20)")
    peer.start("c.recv(1)")  # waits
    target.run("c = socket.fromshare(info); c.settimeout(20); c.sendall(b'!')", info=info)
    assert peer.result() == b"!"
    assert target.run(read_exactly(str(taken))) == bytes(taken)
