"""The bench of the statements' tests."""

import pytest

from tests.support.spi_bench import SpiBench


@pytest.fixture
def bench():
    return SpiBench()
