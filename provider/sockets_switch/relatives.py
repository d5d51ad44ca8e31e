"""Descriptors that a child process has inherited over fork: the agent's view of what the kernel shares.

A child gets a descriptor of its own for each socket that it inherited, a reference like any other, which does not
control the socket. It and its parent's are *relatives*: either takes control from the other by just using the socket,
without a ticket, as a hand-over in mode ``local`` within one instant (docs/decisions/0010-fork.md). Relatives of a
listener accept side by side; control of the listener stays where it is.
"""

from fabric.ids import ProcessInstance, SocketHandle
from fabric.units import Instant
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch.listeners import holder_of
from provider.sockets_switch.shared_socket import Descriptor, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore
from provider.sockets_switch.transfers import Transfers


class Relatives:
    """See the module text."""

    def __init__(self, core: SwitchCore, transfers: Transfers) -> None:
        self._core = core
        self._transfers = transfers
        self._families = 0

    def inherit(self, parent: ProcessInstance, s: SocketHandle, child: ProcessInstance, now: Instant) -> Descriptor:
        """A descriptor of ``child`` for the socket of its parent's ``s``; the caller knows that it is its parent.

        WSAENOTSOCK for what is no socket of the parent, WSAEMFILE, WSAENOBUFS.
        """
        core = self._core
        original, heir = core.descriptor(parent, s), core.process(child)
        core.require_room(heir)
        made = core.new_descriptor(heir, original.socket)
        if not original.family:
            self._families += 1
            original.family = self._families
        made.family = original.family
        core.registry.join(original.socket.number, holder_of(made), now)
        core.report("descriptor.inherit", s=made.s, socket=original.socket.number, pid=child.pid, parent=parent.pid)
        return made

    def take(self, descriptor: Descriptor, now: Instant) -> None:
        """Control goes to ``descriptor`` from the relative that has it. WSAEINVAL if none has it, WSAEALREADY while it
        connects; WSAEMFILE, WSAENOBUFS.
        """
        core, socket = self._core, descriptor.socket
        controlling = core.controlling(socket)
        if controlling is None or not descriptor.is_relative(controlling):
            raise WsaError(WsaErrno.WSAEINVAL, "no relative of this descriptor controls the socket")
        if socket.phase is SocketPhase.CONNECTING:
            raise WsaError(WsaErrno.WSAEALREADY, "the process that inherited or shared this socket is connecting it")
        if socket.ended:
            raise WsaError(socket.error or WsaErrno.WSAECONNABORTED, "the connection is gone")
        self._transfers.take(controlling, descriptor, now)

    def heir(self, dead: Descriptor) -> Descriptor | None:
        """The newest relative of a descriptor whose process has died."""
        alive = (d for d in reversed(dead.socket.descriptors) if d.is_relative(dead) and not (d.exited or d.closing))
        return next(alive, None)
