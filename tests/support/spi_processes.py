"""Real processes of this machine that use the TCP/IP provider through its table; no lab, no agent.

In each, ``t`` is the provider's table (WSPStartup has been called), ``counts`` how often each entry was called,
``upcalls`` the (entry id, handle) of every WPUModifyIFSHandle, and ``c`` the module of constants.
"""

import os
import subprocess
from pathlib import Path

from tests.support.puppet import Puppet

ROOT = Path(__file__).parents[2]
START = """
import signal, struct
from fabric.ids import ProcessInstance
from provider import constants as c
from provider.catalog import TCPIP_ENTRY
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.spi import CallLog, ConditionDecision, ConditionResult
from provider.tcpip_provider import duplication
from provider.tcpip_provider.service_provider import VERSION_2_2, TcpIpServiceProvider
from provider.tcpip_provider.spi_tables import IfsUpcallTable
upcalls = []
def modify(entry, handle):
    upcalls.append((entry, handle))
    return handle
calls = []
log = CallLog(ProcessInstance(os.getpid(), 0), lambda name, process, outcome: calls.append(name))
counts = log.counts
provider_ = TcpIpServiceProvider()
t = log.trace_calls(provider_.startup(VERSION_2_2, TCPIP_ENTRY.info, IfsUpcallTable(modify)))
whatever = c.FROM_PROTOCOL_INFO
def tcp():
    return t.WSPSocket(c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP)
def redeem(info):
    return t.WSPSocket(whatever, whatever, whatever, WSAPROTOCOL_INFOW.unpack(info))
"""


class _ThisMachine:
    """Stands where puppets expect a lab."""

    def command(self, _host, *arguments, **options):
        environment = {key: value for key, value in os.environ.items() if key != "SANLOOM_AGENT"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        return subprocess.Popen(list(arguments), text=True, env=environment, **options)


def start_process() -> Puppet:
    """One more process; close it."""
    started = Puppet(_ThisMachine(), "")
    started.run(START)
    return started


def descriptors(pid: int) -> list[str]:
    """What a process's descriptors lead to."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return sorted(found)


def rendezvous_names() -> list[str]:
    """The abstract names at which tickets wait on this machine."""
    names = (line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines())
    return [name for name in names if name.startswith("@sanloom-tcpip/")]


def rendezvous_name(info: bytes) -> str:
    """The one of a ticket."""
    return f"@sanloom-tcpip/{int.from_bytes(info[112:116], 'little'):08x}"
