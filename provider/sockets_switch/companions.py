"""A provider's socket moves from one process's provider instance to another's within one instant.

That is what happens when no application asks for it: connections that wait at a listener go along with it, and a
connection whose controlling process has closed or died goes back to the process that it came from.
"""

from fabric.ids import SocketDescriptor
from fabric.units import Instant
from provider import constants as c
from provider.errors import WsaError
from provider.sockets_switch.shared_socket import AttachedProcess, Descriptor, SharedSocket
from provider.sockets_switch.switch_core import SwitchCore

_SAME = c.FROM_PROTOCOL_INFO


def move_companion(core: SwitchCore, socket: SharedSocket, to: AttachedProcess, now: Instant) -> SocketDescriptor:
    """Take the pumped connection of ``socket`` to ``to``; its new descriptor there.

    WSAEMFILE or WSAENOBUFS if that provider instance has no room; the connection is gone then.
    """
    pump = socket.pump
    assert pump is not None, "only a connection moves"
    assert pump.table is not None, "it is on its way already"
    table, san = pump.table, pump.san
    template = table.WSPDuplicateSocket(san, to.process, now)
    pump.detach()
    for descriptor in socket.descriptors:
        if descriptor.san == san and descriptor.owner.table is table:
            descriptor.san = None
    table.WSPCloseSocket(san, now)
    try:
        with core.creating(socket):
            moved: SocketDescriptor = to.table.WSPSocket(_SAME, _SAME, _SAME, template, c.WSA_FLAG_OVERLAPPED, now)
    except WsaError:
        to.provider.discard(template, now)
        raise
    pump.attach(to, moved, now)
    return moved


def bring_home(core: SwitchCore, descriptor: Descriptor, now: Instant) -> None:
    """The provider's socket comes back from a process that has closed or died, to the one that controls now.

    Errors are those of ``move_companion``; nothing happens while the connection is on its way, made anew, or over.
    """
    socket, pump, dormant = descriptor.socket, descriptor.socket.pump, descriptor.san
    if pump is None or pump.table is None or pump.lost is not None or socket.ended or pump.session.is_remaking:
        return
    here = pump.table is descriptor.owner.table
    if here and pump.san == dormant:
        return
    descriptor.san = pump.san if here else move_companion(core, socket, descriptor.owner, now)
    if dormant is not None:
        descriptor.owner.table.WSPCloseSocket(dormant, now)
