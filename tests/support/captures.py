"""Frames and pcapng streams for tests of captures."""

from fabric.wire.fast import FrameBuilder
from fabric.wire.pcapng import PcapngWriter

RC_SEND_ONLY = 0x04
CLIENT, SERVER = bytes([10, 77, 0, 1]), bytes([10, 77, 0, 2])


def roce_frame(psn: int = 0, payload: bytes = b"payload!") -> bytes:
    """A valid RC SEND Only frame from client to server."""
    builder = FrameBuilder(
        source_mac=b"\x02\0" + CLIENT,
        destination_mac=b"\x02\0" + SERVER,
        source_ip=CLIENT,
        destination_ip=SERVER,
        udp_source_port=50_000,
    )
    return builder.build(RC_SEND_ONLY, psn, payload, destination_qpn=0x12)


def pcapng(packets: list[tuple[int, str, bytes]], *, side: str = "entry") -> bytes:
    """A capture of packets given as (time in ns since the epoch, link name, data)."""
    data = bytearray()
    writer = PcapngWriter(data.extend)
    interfaces: dict[str, int] = {}
    for at, link, packet in packets:
        if link not in interfaces:
            interfaces[link] = writer.add_interface(link, f"{link} {side}")
        writer.write_packet(interfaces[link], at, packet)
    return bytes(data)
