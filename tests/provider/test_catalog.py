"""The catalogue."""

import pytest

from provider import constants as c
from provider.catalog import SAN_ENTRY, TCPIP_ENTRY, Catalog


def test_the_san_entry_follows_the_rules():
    assert SAN_ENTRY.dwServiceFlags1 == 0x2E
    assert SAN_ENTRY.dwProviderFlags == c.PFL_HIDDEN
    assert SAN_ENTRY.ProtocolChain.ChainLen == 1
    assert SAN_ENTRY.dwProviderReserved == 0
    assert [e.dwCatalogEntryId for e in Catalog().entries()] == [1001, 1002]


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
