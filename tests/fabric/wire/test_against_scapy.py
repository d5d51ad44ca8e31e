"""Our ICRC against scapy's."""

import warnings

import pytest

from fabric.wire import decode
from tests.fabric.wire.vectors import VECTORS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.contrib.roce import BTH
    from scapy.layers.l2 import Ether

    import fabric.wire.scapy_layers


@pytest.mark.parametrize("text", VECTORS)
def test_scapy_computes_the_same_icrc(text):
    data = bytes.fromhex(text)
    frame = Ether(data)
    body = bytes(frame[BTH])[:-4]
    computed = int.from_bytes(frame[BTH].compute_icrc(body), "big")
    assert computed == int.from_bytes((decode(data).icrc or 0).to_bytes(4, "little"), "big")


def test_our_layers_name_the_headers():
    data = bytes.fromhex(VECTORS[2])
    assert Ether(data)[fabric.wire.scapy_layers.RETH].dmalen == 0xC8
