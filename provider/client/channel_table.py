"""The SAN sockets of this process, by the data channel behind their descriptors.

Several socket objects may have one channel (``dup``, ``fromfd``), and a descriptor may go about without an object
(``detach``): then it is found again by the inode of the channel's end, which every duplicate of the descriptor shares.
"""

import os
import stat
import weakref
from typing import TYPE_CHECKING

from provider.client.agent_connection import Agent
from provider.errors import WsaErrno, WsaError

if TYPE_CHECKING:
    from provider.client.san_socket import SanSocket


class ChannelEntry:
    """One descriptor ``s`` of the sockets switch in this process."""

    def __init__(self, agent: Agent, s: int, fd: int) -> None:
        self.agent, self.s = agent, s
        self.pid = os.getpid()
        self.connected = False
        """Known to have been connected; until then the agent is asked before bytes move."""
        self.bound_to = ""
        """The loopback address that was asked for in ``bind``."""
        self.detached = False
        """The descriptor is the program's business: its closing ends the connection."""
        self.members: weakref.WeakSet[SanSocket] = weakref.WeakSet()
        self._inode = os.fstat(fd).st_ino
        _entries[self._inode] = self

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
        if _entries.get(self._inode) is self:
            del _entries[self._inode]

    def replace(self, fd: int) -> None:
        """Control has come back with a fresh channel: put it under the numbers that all members have."""
        self.forget()
        self._inode = os.fstat(fd).st_ino
        _entries[self._inode] = self
        for member in self.members:
            if member.fileno() != -1:
                os.dup2(fd, member.fileno(), inheritable=False)


_entries: dict[int, ChannelEntry] = {}


def find_entry(fd: int) -> ChannelEntry | None:
    """The entry whose channel this descriptor leads to; ``None`` for any other. OSError for a bad descriptor."""
    status = os.fstat(fd)
    found = _entries.get(status.st_ino) if stat.S_ISSOCK(status.st_mode) else None
    return found if found is not None and found.pid == os.getpid() else None
