"""WSPDuplicateSocket for sockets of the kernel: the descriptor waits at a rendezvous for the one process it is meant
for.

The source keeps a duplicate of the descriptor and listens at an abstract AF_UNIX name, which follows from
``dwProviderReserved`` (so that the kernel itself keeps that number unique on the host, and no file is left behind). The
target connects and sends the 628 bytes. Each side looks at the other's kernel credentials (pid and start time): the
source answers nobody but the process that was named to WSPDuplicateSocket, the target asks nobody but the process that
the structure was made by. Then

    target -> source   the structure, compared byte by byte with what was given out
    source -> target   GRANTED and the descriptor (SCM_RIGHTS), or REFUSED
    target -> source   TAKEN, once the descriptor is registered; closing instead leaves the ticket good
    source -> target   DONE: the source's duplicate is closed, the ticket used up

A ticket counts as a reference to the socket until it is used, its process has ended, or LIFETIME is over; then nothing
of it is left. It lives in a thread of the source: a source that ends in good order waits for it, one that is killed
takes it along. szProtocol carries behind its NUL, in the last 28 bytes: 16 random bytes, the source's pid and start
time (u32, u64, little-endian).
"""

import array
import errno
import hmac
import os
import secrets
import select
import socket as stdlib
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from socket import socket as _Stdlib  # as it was when we were imported: ``provider.run`` replaces it
from typing import TypeVar

from fabric.ids import ProcessInstance
from provider.errors import WsaErrno, WsaError
from provider.process_identity import NoSuchProcess, identify, instance_of, open_process
from provider.protocol_info import SIZE, WSAPROTOCOL_INFOW
from provider.tcpip_provider.entries import entry_of, is_ours
from provider.tcpip_provider.winsock_errors import as_winsock_errors, winsock_error

T = TypeVar("T")
LIFETIME = 5.0
"""Seconds that a ticket is good for."""
ANSWER_SECONDS = 2.0
"""How long the source waits for each message of its target."""
PATIENCE = 5.0
"""How long the target waits for each answer of the source."""
TICKETS_MAX = 256
"""Tickets of one process that are out at once."""
GRANTED, REFUSED, TAKEN, DONE = b"G", b"R", b"T", b"D"
_TAIL = struct.Struct("<16sIQ")
_DOCUMENTED = (
    WsaErrno.WSAENETDOWN,
    WsaErrno.WSAEINVAL,
    WsaErrno.WSAEMFILE,
    WsaErrno.WSAENOBUFS,
    WsaErrno.WSAENOTSOCK,
)
_NAME_TRIES = 8


class _Ticket:
    """One duplicate that waits for its process."""

    def __init__(self, fd: int, template: WSAPROTOCOL_INFOW, process_id: int, lifetime: float) -> None:
        self._deadline = time.monotonic() + lifetime
        self._connection: _Stdlib | None = None
        self._held: list[int] = []
        try:
            self._fd = os.dup(fd)
            self._held.append(self._fd)
            own, (self._target, self._pidfd) = instance_of(os.getpid()), open_process(process_id)
            self._held.append(self._pidfd)
            self._listener, token = _listen()
        except BaseException as error:
            self._release()
            if isinstance(error, NoSuchProcess):
                raise _identity_error(error) from None
            raise
        tail = _TAIL.pack(secrets.token_bytes(16), own.pid, own.start_time)
        name = template.name_bytes[: -_TAIL.size]
        self.info = replace(template, dwProviderReserved=token, szProtocol=name + tail)
        self._packed = self.info.pack()
        # A ticket for this process itself is worth nothing once the process ends; another's is worth waiting for.
        self.thread = threading.Thread(target=self._serve, name="ticket", daemon=self._target == own)

    def close(self, *, in_child: bool = False) -> None:
        """Give the reference up. In a child after fork the rendezvous stays the parent's."""
        if not in_child:
            with _lock:
                _tickets.discard(self)
            with suppress(OSError):
                self._listener.shutdown(stdlib.SHUT_RDWR)  # a child that forked may still hold it open
        if self._connection is not None and in_child:
            self._connection.close()
        self._listener.close()
        self._release()

    def _release(self) -> None:
        while self._held:  # a number is forgotten before it is closed: a fork in between must not close it again
            os.close(self._held.pop())

    def _serve(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._pidfd, select.POLLIN)
        closed = False
        try:
            while not closed and (left := self._deadline - time.monotonic()) > 0:
                ready = [fd for fd, _ in poller.poll(left * 1000)]
                if self._pidfd in ready:
                    break  # the process has ended
                if ready:
                    closed = self._meet()
        finally:
            if not closed:
                self.close()

    def _meet(self) -> bool:
        """One connection at the rendezvous; true when the ticket is over, and closed."""
        try:
            self._connection, _ = self._listener.accept()
        except OSError:
            time.sleep(0.01)  # no descriptor left, perhaps: try again until the deadline
            return False
        with self._connection as connection, suppress(OSError, NoSuchProcess):
            connection.settimeout(ANSWER_SECONDS)
            peer = identify(connection)
            os.close(peer.pidfd)
            if peer.process != self._target or not hmac.compare_digest(connection.recv(SIZE + 1), self._packed):
                connection.send(REFUSED)
                return False
            rights = [(stdlib.SOL_SOCKET, stdlib.SCM_RIGHTS, array.array("i", [self._fd]))]
            connection.sendmsg([GRANTED], rights)
            try:
                taken = connection.recv(1) == TAKEN
            except TimeoutError:
                taken = True  # it has the descriptor and does not say so: once means once
            if not taken:
                return False
            self.close()
            with suppress(OSError):
                connection.send(DONE)
            return True
        return False


_tickets: set[_Ticket] = set()
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    """Tickets are the parent's; the child must hold neither their descriptors nor their rendezvous."""
    global _lock
    _lock = threading.RLock()
    for ticket in _tickets:
        ticket.close(in_child=True)
    _tickets.clear()


os.register_at_fork(
    before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_after_fork_in_child
)


def tickets_out() -> int:
    """How many tickets of this process are waiting now."""
    return len(_tickets)


def duplicate(sock: stdlib.socket, process_id: int, lifetime: float = LIFETIME) -> WSAPROTOCOL_INFOW:
    """WSPDuplicateSocket: the structure that the process ``process_id``, and no other, can make a descriptor of, once.

    The socket stays as it was, and usable. WSAENOTSOCK, WSAEINVAL (no such process; not a stream or datagram socket
    of IPv4 or IPv6), WSAEMFILE, WSAENOBUFS (too many tickets out), WSAENETDOWN; no other error.
    """
    try:
        with as_winsock_errors():
            entry = entry_of(sock)
            if entry is None:
                raise WsaError(WsaErrno.WSAEINVAL, "only streams and datagrams of IPv4 and IPv6 can be handed over")
            with _lock:
                if len(_tickets) >= TICKETS_MAX:
                    raise WsaError(WsaErrno.WSAENOBUFS, f"{TICKETS_MAX} tickets of this process are out")
                ticket = _Ticket(sock.fileno(), entry.info, process_id, lifetime)
                _tickets.add(ticket)
    except WsaError as error:
        if error.wsa in _DOCUMENTED:
            raise
        raise WsaError(WsaErrno.WSAENETDOWN, str(error)) from None
    try:
        ticket.thread.start()
    except RuntimeError as error:
        ticket.close()
        raise WsaError(WsaErrno.WSAENOBUFS, str(error)) from None
    return ticket.info


def redeem(info: WSAPROTOCOL_INFOW, register: Callable[[int], T]) -> T:
    """WSPSocket with a special structure: a descriptor for the shared socket, given to ``register``; its result.

    If ``register`` raises, the descriptor is closed and the ticket stays good. WSAEINVAL for a ticket that is not good
    (used, expired, altered, another process's, its source gone), WSAEMFILE when this process has no descriptor left,
    WSAENETDOWN when the source does not answer.
    """
    number, source = info.dwProviderReserved, _source(info)
    if not number or not is_ours(info):
        raise WsaError(WsaErrno.WSAEINVAL, "this structure stands for no socket of the TCP/IP provider")
    with as_winsock_errors():
        connection = _Stdlib(stdlib.AF_UNIX, stdlib.SOCK_SEQPACKET)
    with connection:
        fd = _fetch(connection, number, source, info.pack())
        try:
            made = register(fd)
        except BaseException:
            os.close(fd)
            raise
        with suppress(OSError):  # the descriptor is ours in any case; if the source is gone, so is the ticket
            connection.send(TAKEN)
            connection.recv(1)
        return made


def _fetch(connection: _Stdlib, number: int, source: ProcessInstance, packed: bytes) -> int:
    try:
        connection.settimeout(PATIENCE)
        connection.connect(_name(number))
        peer = identify(connection)
        os.close(peer.pidfd)
        if peer.process != source:
            raise WsaError(WsaErrno.WSAEINVAL, "another process waits where the ticket's source should")
        connection.send(packed)
        space = stdlib.CMSG_SPACE(array.array("i").itemsize)
        answer, ancillary, _flags, _ = connection.recvmsg(1, space, stdlib.MSG_CMSG_CLOEXEC)
    except WsaError:
        raise
    except TimeoutError:
        raise WsaError(WsaErrno.WSAENETDOWN, "the ticket's source does not answer") from None
    except NoSuchProcess as error:
        raise _identity_error(error) from None
    except ConnectionError:
        raise WsaError(WsaErrno.WSAEINVAL, "the ticket is used up or expired, or its source is gone") from None
    except OSError as error:
        raise winsock_error(error) from None
    if answer != GRANTED:
        raise WsaError(WsaErrno.WSAEINVAL, "the ticket was altered, or is another process's")
    for level, kind, data in ancillary:
        if (level, kind) == (stdlib.SOL_SOCKET, stdlib.SCM_RIGHTS) and len(data) >= array.array("i").itemsize:
            return int(array.array("i", data[: array.array("i").itemsize])[0])
    raise WsaError(WsaErrno.WSAEMFILE, "no descriptor left for the socket")


def _source(info: WSAPROTOCOL_INFOW) -> ProcessInstance:
    _nonce, pid, start_time = _TAIL.unpack(info.name_bytes[-_TAIL.size :])
    return ProcessInstance(pid, start_time)


def _name(number: int) -> str:
    return f"\0sanloom-tcpip/{number:08x}"


def _listen() -> tuple[_Stdlib, int]:
    """A listening rendezvous under a number that no other ticket of the host has."""
    listener = _Stdlib(stdlib.AF_UNIX, stdlib.SOCK_SEQPACKET)
    try:
        for tries_left in reversed(range(_NAME_TRIES)):
            number = secrets.randbelow(0xFFFFFFFF) + 1
            try:
                listener.bind(_name(number))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not tries_left:
                    raise
            else:
                break
        listener.setblocking(False)
        listener.listen(16)
        return listener, number
    except BaseException:
        listener.close()
        raise


def _identity_error(error: NoSuchProcess) -> WsaError:
    """Why a process could not be looked at: there is none, or no descriptor is left to look at it with."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
        return WsaError(WsaErrno.WSAEMFILE, "no descriptor left to look at the process with")
    return WsaError(WsaErrno.WSAEINVAL, str(error))
