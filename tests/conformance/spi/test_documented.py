"""``docs/conformance.md`` has the table of the statements and the tests that are here now."""

import pytest

from tests.conformance.spi.statements import DOCUMENT, by_number, numbers_of, renewed, statements


def test_the_document_is_in_step():
    document = DOCUMENT.read_text()
    assert document == renewed(document), "run: python -m tests.conformance.spi.statements"


def test_every_statement_is_there_once_and_tests_name_no_others():
    assert [s.number for s in statements()] == list(range(1, 131))
    assert set(by_number()) <= set(range(1, 131))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("007", {7}), ("005_and_006", {5, 6}), ("033_to_035", {33, 34, 35}), ("001_to_003_and_009", {1, 2, 3, 9})],
)
def test_numbers_in_names(name, numbers):
    assert numbers_of(name) == numbers
