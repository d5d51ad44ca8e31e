"""``encode`` refuses numbers that do not fit their fields, at either side, and takes all that do."""

from dataclasses import replace

import pytest

from fabric.errors import SanloomError
from fabric.wire import decode, encode
from fabric.wire.codec import _BTH_BITS, _IPV6_BITS
from fabric.wire.fast import FrameBuilder
from fabric.wire.headers import Ipv6

FRAME = decode(
    FrameBuilder(
        source_mac=bytes(6),
        destination_mac=bytes(6),
        source_ip=bytes(4),
        destination_ip=bytes(4),
        udp_source_port=0xC000,
    ).build(4, 5, b"data", destination_qpn=6)
)
SIX = replace(FRAME, ip=Ipv6(bytes(16), bytes(16)), icrc=None)


@pytest.mark.parametrize(("name", "bits"), _BTH_BITS.items())
def test_the_base_transport_header(name, bits):
    for value in (-1, 1 << bits, 1 << 40):
        with pytest.raises(SanloomError, match=rf"Bth.{name} is {value}; the field has {bits} bits"):
            encode(replace(FRAME, bth=replace(FRAME.bth, **{name: value}), icrc=None))
    encode(replace(FRAME, bth=replace(FRAME.bth, **{name: (1 << bits) - 1}), icrc=None))


@pytest.mark.parametrize(("name", "bits"), _IPV6_BITS.items())
def test_ipv6(name, bits):
    for value in (-1, 1 << bits):
        with pytest.raises(SanloomError, match=f"Ipv6.{name} is {value}; the field has {bits} bits"):
            encode(replace(SIX, ip=replace(SIX.ip, **{name: value})))
    encode(replace(SIX, ip=replace(SIX.ip, **{name: (1 << bits) - 1})))
