"""Bytes between a process and its session: the part of the agent half that the driver of the data channels calls."""

from abc import ABC, abstractmethod

from fabric.ids import ProcessInstance, SocketHandle
from fabric.units import Instant
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch.shared_socket import Descriptor, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore


class MovingBytes(ABC):
    """Mixed into :class:`provider.sockets_switch.agent_half.AgentHalf`."""

    core: SwitchCore

    @abstractmethod
    def _controlled(self, process: ProcessInstance, s: SocketHandle) -> Descriptor: ...

    def send_space(self, s: SocketHandle) -> int:
        """Bytes that the session takes now from ``s``; 0 while it may not send."""
        descriptor = self.core.descriptors.get(s)
        if descriptor is None or not descriptor.has_channel or descriptor.socket.session is None:
            return 0
        return descriptor.socket.session.send_space

    def send(self, s: SocketHandle, data: bytes, now: Instant) -> None:
        """Bytes that the process wrote into its channel; the driver keeps to ``send_space``."""
        socket = self.core.descriptors[s].socket
        if socket.session is not None and not socket.ended:
            socket.session.send(data, now, beyond_limit=True)
            self.core.registry.used(socket.number)
            self.core.touch(socket)

    def send_urgent(self, process: ProcessInstance, s: SocketHandle, data: bytes, now: Instant) -> None:
        """WSPSend with MSG_OOB: the last byte of ``data`` is urgent; the driver has sent what the process wrote before.

        WSAENOTCONN; WSAESHUTDOWN; WSAEWOULDBLOCK while the session takes nothing.
        """
        socket = self._controlled(process, s).socket
        if socket.session is None or socket.phase is not SocketPhase.CONNECTED:
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        socket.session.send(b"", now)  # says why if nothing may be sent
        if not socket.session.send_space:
            raise WsaError(WsaErrno.WSAEWOULDBLOCK, "the send buffer is full")
        socket.session.send_urgent(data, now)
        self.core.registry.used(socket.number)
        self.core.touch(socket)

    def receive_urgent(self, process: ProcessInstance, s: SocketHandle, peek: bool, now: Instant) -> int:
        """WSPRecv with MSG_OOB: the urgent byte; WSAEINVAL when there is none outside the stream."""
        socket = self._controlled(process, s).socket
        if socket.session is None:
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        found = socket.session.urgent.byte
        if found is None:
            raise WsaError(WsaErrno.WSAEINVAL, "there is no urgent data")
        if not peek:
            socket.session.urgent.byte = None
            self.core.registry.used(socket.number)
        return found

    def peek(self, s: SocketHandle, limit: int) -> bytes:
        """Up to ``limit`` bytes that wait for the process."""
        descriptor = self.core.descriptors.get(s)
        if descriptor is None or not descriptor.has_channel or descriptor.socket.session is None:
            return b""
        return descriptor.socket.session.peek(limit)

    def consume(self, s: SocketHandle, count: int, now: Instant) -> None:
        """The first ``count`` bytes are in the process's channel now."""
        descriptor = self.core.descriptors[s]
        socket = descriptor.socket
        assert socket.session is not None
        socket.session.consume(count, now)
        descriptor.given += count
        self.core.touch(socket)

    def peer_finished(self, s: SocketHandle) -> bool:
        """Whether the peer sends no more and every byte has been consumed."""
        session = self.core.descriptors[s].socket.session
        return session is not None and session.peer_finished and not session.unread
