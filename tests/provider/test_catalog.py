"""The catalogue."""

import pytest

from provider import constants as c
from provider.catalog import SAN_ENTRY, TCPIP_ENTRY, Catalog


def test_the_san_entry_follows_the_rules():
    assert SAN_ENTRY.info.dwServiceFlags1 == 0x2E
    assert SAN_ENTRY.info.dwProviderFlags == c.PFL_HIDDEN
    assert SAN_ENTRY.info.ProtocolChain.ChainLen == 1
    assert SAN_ENTRY.info.dwProviderReserved == 0
    assert [e.entry_id for e in Catalog().entries()] == [1001, 1002]


def test_applications_do_not_see_hidden_entries():
    catalog = Catalog()
    assert catalog.entries(hidden=False) == (TCPIP_ENTRY,)
    assert catalog.choose(c.AF_INET, c.SOCK_STREAM, 0) is TCPIP_ENTRY
    assert catalog.choose(c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP) is TCPIP_ENTRY
    assert catalog.choose(c.AF_INET, c.SOCK_DGRAM, 0) is None


def test_entries_are_found_by_id_and_ids_are_unique():
    assert Catalog().find(1001) is SAN_ENTRY
    assert Catalog().find(7) is None
    with pytest.raises(ValueError, match="exists already"):
        Catalog((SAN_ENTRY, SAN_ENTRY))


def test_a_duplicated_socket_is_the_entry_with_a_token():
    info = SAN_ENTRY.duplicate(7)
    assert info.dwProviderReserved == 7
    assert info.dwCatalogEntryId == SAN_ENTRY.entry_id == 1001
    assert SAN_ENTRY.info.dwProviderReserved == 0
    with pytest.raises(AssertionError):
        SAN_ENTRY.duplicate(0)
