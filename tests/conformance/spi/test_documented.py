"""``docs/conformance.md`` lists exactly the statements that have a test here: ``test_033_to_035_...``,
``test_005_and_006_...``.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[2] / "docs" / "conformance.md"
_NAME = re.compile(r"def test_(\d{3})(?:_(to|and)_(\d{3}))?_")


def numbers_in_names() -> list[int]:
    """Numbers in the names of tests."""
    found: set[int] = set()
    for file in HERE.glob("test_*.py"):
        for first, joined, last in _NAME.findall(file.read_text()):
            found |= set(range(int(first), int(last) + 1)) if joined == "to" else {int(first), int(last or first)}
    return sorted(found)


def test_the_document_is_in_step():
    (line,) = re.findall(r"^Tested by number: (.*)\.$", DOCUMENT.read_text(), re.MULTILINE)
    assert line == ", ".join(map(str, numbers_in_names()))
