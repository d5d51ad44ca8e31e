"""The SAN sockets of this process, by the data channel behind their descriptors.

Several socket objects may have one channel (``dup``, ``fromfd``), and a descriptor may go about without an object
(``detach``): then it is found again by the kernel's cookie of the channel's end, which every duplicate of the
descriptor shares and no other socket ever gets.
"""

import os
import socket as stdlib
import stat
import weakref
from collections import deque
from socket import socket as _Stdlib  # as it was when we were imported: ``provider.run`` replaces it
from typing import TYPE_CHECKING

from provider.client.agent_connection import Agent
from provider.errors import WsaErrno, WsaError

if TYPE_CHECKING:
    from provider.client.san_socket import SanSocket

DETACHED_MAX = 4096
_SO_COOKIE = 57
"""SOL_SOCKET option of Linux that the standard module does not name: 8 bytes, unique while the machine runs."""


class ChannelEntry:
    """One descriptor ``s`` of the sockets switch in this process."""

    def __init__(self, agent: Agent, s: int, fd: int) -> None:
        self.agent, self.s = agent, s
        self.pid = os.getpid()
        self.connected = False
        """Known to have been connected; until then the agent is asked before bytes move."""
        self.watching = False
        """The descriptor leads to the channel of a relative (over fork) that controls the socket: it can be waited on;
        before bytes move, control has to be taken.
        """
        self.bound_to = ""
        """The loopback address that was asked for in ``bind``."""
        self.named = False
        """``bind`` was called."""
        self.options: dict[tuple[int, int], int | bytes | bytearray] = {}
        """What ``setsockopt`` was called with, in the host's own numbers."""
        self.detached = False
        """The descriptor is the program's business: its closing ends the connection."""
        self.members: weakref.WeakSet[SanSocket] = weakref.WeakSet()
        self._cookie = _cookie(fd)
        _entries[self._cookie] = self

    def leave(self, member: "SanSocket") -> bool:
        """A socket object closes; true if it was the last one, and the descriptor ends with it."""
        self.members.discard(member)
        last = not self.members and not self.detached
        if last:
            self.forget()
        return last

    def own_name(self) -> tuple[str, int]:
        """What ``getsockname`` says."""
        local = self.agent.call("status", s=self.s)["local"]
        return (self.bound_to or local[0], local[1]) if local else ("0.0.0.0", 0)

    def peer_name(self) -> tuple[str, int]:
        """What ``getpeername`` says; WSAENOTCONN when not connected."""
        status = self.agent.call("status", s=self.s)
        if status["state"] != "connected" or not status["peer"]:
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        return status["peer"][0], status["peer"][1]

    def forget(self) -> None:
        """The channel is no longer ours."""
        if _entries.get(self._cookie) is self:
            del _entries[self._cookie]

    def detach(self, member: "SanSocket") -> None:
        """``member`` gives its descriptor away. How it ends we do not hear; only the newest DETACHED_MAX are known."""
        self.members.discard(member)
        if not self.detached:
            self.detached = True
            _detached.append(self)
            if len(_detached) > DETACHED_MAX:
                _detached.popleft().forget()

    def replace(self, fd: int, watching: bool = False) -> None:
        """Control has come with a fresh channel, or, ``watching``, a relative's is to be waited on: put it under the
        numbers that all members have.
        """
        self.watching = watching
        self.forget()
        self._cookie = _cookie(fd)
        _entries[self._cookie] = self
        for member in self.members:
            if member.fileno() != -1:
                os.dup2(fd, member.fileno(), inheritable=False)
                if not watching:
                    member.settimeout(member.gettimeout())  # whether calls block is a property of the open file


def entries_of(pid: int) -> list[ChannelEntry]:
    """All that a process, this one or its parent before fork, had and a child can inherit."""
    return [entry for entry in _entries.values() if entry.pid == pid and not entry.detached]


_entries: dict[bytes, ChannelEntry] = {}
_detached: deque[ChannelEntry] = deque()


def find_entry(fd: int) -> ChannelEntry | None:
    """The entry whose channel this descriptor leads to; ``None`` for any other. OSError for a bad descriptor."""
    found = _entries.get(_cookie(fd)) if stat.S_ISSOCK(os.fstat(fd).st_mode) else None
    return found if found is not None and found.pid == os.getpid() else None


def _cookie(fd: int) -> bytes:
    with _Stdlib(fileno=os.dup(fd)) as duplicate:
        return duplicate.getsockopt(stdlib.SOL_SOCKET, _SO_COOKIE, 8)
