"""This process's way to its agent: short requests over AF_UNIX, on as many connections as there are threads asking at
once.

The agent knows a process by the kernel's credentials, so all connections of a process are one to it. A connection
that is interrupted in the middle of a request is thrown away; the next request opens another. After fork the child
has connections of its own.
"""

import array
import os
import socket
import sys
import threading
from socket import socket as _Stdlib  # as it was when we were imported: ``provider.run`` replaces it
from typing import Any

from provider import ipc
from provider.errors import WsaErrno, WsaError

REQUEST_TIMEOUT = 20.0
"""Seconds for one request; the agent answers within its own deadlines, which are shorter."""
_FDS_MAX = 4


def agent_path() -> str:
    """Where the agent of this process's host listens; WSAENETDOWN when the process runs on no host."""
    path = os.environ.get(ipc.ENVIRONMENT_AGENT)
    if not path:
        raise WsaError(
            WsaErrno.WSAENETDOWN,
            f"this process runs on no host of a lab ({ipc.ENVIRONMENT_AGENT} is not set)",
        )
    return path


class AgentConnection:
    """One AF_UNIX connection, attached."""

    def __init__(self, path: str) -> None:
        self._socket = _Stdlib(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._number = 0
        try:
            ipc.connect(self._socket, path, REQUEST_TIMEOUT)
            self.host, _ = self.call("attach", version=ipc.VERSION, name=_process_name())
        except OSError as error:
            self._socket.close()
            if isinstance(error, WsaError):
                raise
            raise WsaError(WsaErrno.WSAENETDOWN, f"the agent does not answer: {error.strerror or error}") from None

    def call(self, operation: str, **members: Any) -> tuple[dict[str, Any], list[int]]:
        """One request and its reply: the result, and the file descriptors beside it (close-on-exec, yours to close)."""
        self._number += 1
        self._socket.sendall(ipc.encode({"id": self._number, "op": operation, **members}))
        space = socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize)
        packet, ancillary, _flags, _ = self._socket.recvmsg(ipc.PACKET_MAX + 1, space)
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        for fd in descriptors:
            os.set_inheritable(fd, False)
        if not packet:
            raise ConnectionResetError("the agent closed the connection")
        reply = ipc.decode(packet)
        if "error" in reply:
            error = reply["error"]
            raise WsaError(WsaErrno(error["wsa"]), str(error["text"]))
        return reply["result"], list(descriptors)

    def close(self) -> None:
        """Give the connection up."""
        self._socket.close()


class Agent:
    """All connections of this process to its agent."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: list[AgentConnection] = []
        self._lock = threading.Lock()
        self._lease: AgentConnection | None = None
        self.host = self._borrow(keep=True).host

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """One request; the result. Any WsaError of the agent is raised; WSAENETDOWN when it is gone."""
        result, descriptors = self.call_fds(operation, **members)
        assert not descriptors
        return result

    def call_fd(self, operation: str, **members: Any) -> tuple[dict[str, Any], int]:
        """One request whose reply carries exactly one file descriptor."""
        result, descriptors = self.call_fds(operation, **members)
        if len(descriptors) != 1:
            for fd in descriptors:
                os.close(fd)
            raise WsaError(WsaErrno.WSAEMFILE, "no file descriptor left for the socket")
        return result, descriptors[0]

    def call_fds(self, operation: str, **members: Any) -> tuple[dict[str, Any], list[int]]:
        """One request; the result and the file descriptors beside it."""
        connection = self._borrow()
        try:
            result = connection.call(operation, **members)
        except WsaError:
            self._return(connection)
            raise
        except (OSError, ValueError) as error:
            connection.close()
            raise WsaError(WsaErrno.WSAENETDOWN, f"the agent is gone: {error}") from None
        except BaseException:
            connection.close()
            raise
        self._return(connection)
        return result

    def forget(self) -> None:
        """After fork: these connections are the parent's."""
        for connection in (*self._idle, *([self._lease] if self._lease else [])):
            connection.close()
        self._lease = None
        self._idle = []
        self._lock = threading.Lock()

    def inherit(self, descriptors: list[int]) -> dict[int, int]:
        """A child process asks for numbers of its own for what its parent has; parent's number -> ours.

        The connection stays open as long as this program runs in this process: the agent takes its end for exec.
        """
        self._lease = self._borrow()
        result, _ = self._lease.call("inherit", descriptors=descriptors)
        return {int(old): int(new) for old, new in result["descriptors"]}

    def _borrow(self, keep: bool = False) -> AgentConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = AgentConnection(self.path)
        if keep:
            self._return(connection)
        return connection

    def _return(self, connection: AgentConnection) -> None:
        with self._lock:
            self._idle.append(connection)


_agents: dict[str, Agent] = {}


def agent() -> Agent:
    """This process's agent, attached at first use (WSPStartupEx)."""
    return agent_at(agent_path())


def agent_at(path: str) -> Agent:
    """The agent that listens there."""
    found = _agents.get(path)
    if found is None:
        found = _agents[path] = Agent(path)
    return found


def _after_fork_in_child() -> None:
    for found in _agents.values():
        found.forget()
    _agents.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _process_name() -> str:
    return os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
