"""WSAPROTOCOL_INFOW against the vector of winsock-direct.md 2.4."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider.catalog import SAN_ENTRY
from provider.protocol_info import GUID, SIZE, WSAPROTOCOL_INFOW, WSAPROTOCOLCHAIN

HEAD = (
    "2e000000000000000000000000000000040000004d6543c9842cb74daf3efdf1"
    "c5322458e9030000010000000000000000000000000000000000000000000000"
    "0000000000000000020000000200000010000000100000000100000006000000"
    "000000000000000000000000ffffffffd4c3b2a1"
)


def test_vector():
    info = dataclasses.replace(SAN_ENTRY.info, dwProviderReserved=0xA1B2C3D4, szProtocol="SAN test provider")
    packed = info.pack()
    assert len(packed) == SIZE == 628
    assert packed[:116].hex() == HEAD
    assert hashlib.sha256(packed).hexdigest() == "4fc64675236a7f6cd9e62a5c65ec081a1f982fa454e284c7b697f4de734fab2f"
    assert WSAPROTOCOL_INFOW.unpack(packed) == info
    assert info.protocol_name == "SAN test provider"


@given(st.binary(min_size=SIZE, max_size=SIZE))
def test_any_628_bytes_survive(data):
    info = WSAPROTOCOL_INFOW.unpack(data)
    assert info.pack() == data
    assert isinstance(info.protocol_name, str)


@pytest.mark.parametrize("length", [0, 627, 629, 372])
def test_other_lengths_are_refused(length):
    with pytest.raises(ValueError, match="628 bytes"):
        WSAPROTOCOL_INFOW.unpack(bytes(length))


def test_members_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        WSAPROTOCOL_INFOW(dwServiceFlags1=1 << 32).pack()
    with pytest.raises(ValueError, match="at most 255"):
        WSAPROTOCOL_INFOW(szProtocol="x" * 256)
    with pytest.raises(ValueError, match="512"):
        WSAPROTOCOL_INFOW(szProtocol=bytes(513))
    with pytest.raises(ValueError, match="7 places"):
        WSAPROTOCOLCHAIN(1, (1,))


def test_bytes_behind_the_name_travel():
    info = WSAPROTOCOL_INFOW(szProtocol="name".encode("utf-16-le") + b"\0\0" + b"secret")
    again = WSAPROTOCOL_INFOW.unpack(info.pack())
    assert again.protocol_name == "name"
    assert again.name_bytes[10:16] == b"secret"


def test_guids_read_back_and_bad_ones_are_refused():
    text = "c943654d-2c84-4db7-af3e-fdf1c5322458"
    assert str(GUID.parse(text)) == text
    assert GUID.parse(text).bytes_le.hex() == "4d6543c9842cb74daf3efdf1c5322458"
    for bad in ("", "c943654d", "z" + text[1:], text + "0"):
        with pytest.raises(ValueError):
            GUID.parse(bad)
    with pytest.raises(ValueError, match="16 bytes"):
        GUID(b"x")
