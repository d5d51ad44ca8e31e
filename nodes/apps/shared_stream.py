"""What the two processes of the generic scenario do with the TCP/IP connection that they share, through the SPI.

Nothing keeps the two apart: both may call WSPRecv on the one stream at any time. So that the bytes still land in the
file in the stream's order, they agree on a lock of their own, as any two users of a shared socket have to.
"""

import fcntl
import select
from pathlib import Path

from fabric.ids import CatalogEntryId, SocketDescriptor
from nodes.apps.steps import report
from provider.catalog import TCPIP_ENTRY
from provider.tcpip_provider.service_provider import VERSION_2_2, TcpIpServiceProvider
from provider.tcpip_provider.spi_tables import GenericProcTable, IfsUpcallTable

CHUNK = 1 << 14


class SharedStream:
    """The provider of this process, and its descriptor ``s`` of the connection."""

    def __init__(self, role: str, timeout: float) -> None:
        self._role, self._timeout = role, timeout
        self.table: GenericProcTable = TcpIpServiceProvider().startup(
            VERSION_2_2, TCPIP_ENTRY.info, IfsUpcallTable(self._modify_ifs_handle)
        )
        self.s = SocketDescriptor(-1)

    def recv(self, count: int) -> bytes:
        """WSPRecv, after a wait of at most ``timeout`` seconds: a handle of this provider is a real descriptor."""
        if not select.select([self.s], [], [], self._timeout)[0]:
            raise TimeoutError(f"nothing came for {self._timeout} s")
        data: bytes = self.table.WSPRecv(self.s, count)
        return data

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes; EOFError if the stream ends early."""
        data = b""
        while len(data) < count:
            part = self.recv(count - len(data))
            if not part:
                raise EOFError("the stream ended early")
            data += part
        return data

    def append(self, out: Path, count: int) -> None:
        """Move ``count`` bytes of the stream to the end of ``out``, while the other process does the same."""
        left = count
        with out.open("ab", buffering=0) as file:
            while left:
                fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    data = self.recv(min(left, CHUNK))
                    if not data:
                        raise EOFError(f"the stream ended {left} bytes early")
                    file.write(data)
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)
                left -= len(data)

    def _modify_ifs_handle(self, entry: CatalogEntryId, handle: SocketDescriptor) -> SocketDescriptor:
        report(self._role, "upcall", name="WPUModifyIFSHandle", entry=entry, handle=handle)
        return handle
