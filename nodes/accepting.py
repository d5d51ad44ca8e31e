"""Accepting connections when the machine is short of something: a server must neither end nor spin then."""

import errno

import trio

PAUSE = 0.05
"""Seconds without accepting after a failure; what a hostile caller can cost is then 20 calls per second."""
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ITS_OWN = (errno.ECONNABORTED, errno.EPERM, errno.EPROTO)


class Acceptor:
    """The callers of a listening socket, one after the other."""

    def __init__(self, listener: trio.socket.SocketType) -> None:
        self._listener = listener
        self.short = 0
        """How often there was no descriptor or memory for a caller."""

    async def next(self) -> trio.socket.SocketType:
        """The next caller."""
        while True:
            try:
                connection, _ = await self._listener.accept()
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self.short += 1
                    await trio.sleep(PAUSE)
                elif error.errno not in _ITS_OWN:
                    raise
            else:
                return connection
