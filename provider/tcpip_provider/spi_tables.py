"""The tables of the generic SPI that the TCP/IP provider and its sockets switch give each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fabric.ids import CatalogEntryId, SocketDescriptor


@dataclass(frozen=True, slots=True)
class IfsUpcallTable:
    """WSPUPCALLTABLE, the entry that a provider of IFS handles uses."""

    WPUModifyIFSHandle: Callable[[CatalogEntryId, SocketDescriptor], SocketDescriptor]
    """(dwCatalogEntryId, ProposedHandle) -> the handle that the provider is to return from WSPSocket or WSPAccept, and
    will be called with; any WsaError makes that call fail."""


@dataclass(frozen=True, slots=True)
class GenericProcTable:
    """WSPPROC_TABLE: the entries of the TCP/IP provider, in the original's order."""

    WSPAccept: Callable[..., Any]
    WSPBind: Callable[..., Any]
    WSPCleanup: Callable[..., Any]
    WSPCloseSocket: Callable[..., Any]
    WSPConnect: Callable[..., Any]
    WSPDuplicateSocket: Callable[..., Any]
    WSPGetPeerName: Callable[..., Any]
    WSPGetSockName: Callable[..., Any]
    WSPGetSockOpt: Callable[..., Any]
    WSPIoctl: Callable[..., Any]
    WSPListen: Callable[..., Any]
    WSPRecv: Callable[..., Any]
    WSPRecvFrom: Callable[..., Any]
    WSPSend: Callable[..., Any]
    WSPSendTo: Callable[..., Any]
    WSPSetSockOpt: Callable[..., Any]
    WSPShutdown: Callable[..., Any]
    WSPSocket: Callable[..., Any]
