"""The 130 statements about the service provider interface, and the table of them in ``docs/conformance.md``.

``python -m tests.conformance.spi.statements`` rewrites the table. A test of this folder says in its name which
statements it is about: ``test_031_...``, ``test_005_and_006_...``, ``test_033_to_035_and_040_...``.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[2] / "docs" / "conformance.md"
BEGIN = "<!-- statements: written by python -m tests.conformance.spi.statements -->"
END = "<!-- statements: end -->"
_NAME = re.compile(r"def (test_(\d{3}(?:_(?:to|and)_\d{3})*)_\w+)\(")


@dataclass(frozen=True)
class Statement:
    """One statement; ``remark`` says why it does not apply or cannot be tested."""

    number: int
    section: str
    text: str
    source: str
    remark: str = ""


def statements() -> list[Statement]:
    """All of them, in order."""
    found: list[Statement] = []
    section = ""
    for line in (HERE / "statements.txt").read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line and not line.startswith("#"):
            number, *rest = (part.strip() for part in line.split(" | "))
            found.append(Statement(int(number), section, *rest))
    return found


def numbers_of(name: str) -> set[int]:
    """The statements that ``033_to_035_and_040`` names."""
    numbers = [int(number) for number in re.findall(r"\d{3}", name)]
    found = set(numbers)
    for joint, (first, last) in zip(re.findall("to|and", name), pairwise(numbers), strict=True):
        if joint == "to":
            found |= set(range(first, last))
    return found


def by_number() -> dict[int, list[str]]:
    """The tests of each statement, as ``file.test``, in the order of files and lines."""
    found: dict[int, list[str]] = {}
    for file in sorted(HERE.rglob("test_*.py")):
        for test, name in _NAME.findall(file.read_text()):
            for number in numbers_of(name):
                found.setdefault(number, []).append(f"`{file.stem.removeprefix('test_')}.{test}`")
    return found


def table() -> str:
    """What stands between the marks in the document."""
    tests = by_number()
    every = statements()
    tested = [s for s in every if s.number in tests and not s.remark]
    other = [s for s in every if s.remark]
    missing = [s for s in every if s.number not in tests and not s.remark]
    lines = [
        BEGIN,
        f"{len(tested)} of {len(every)} statements are tested as they stand; {len(other)} do not apply as they stand; "
        f"{len(missing)} have no test yet" + ("" if missing else "."),
    ]
    if missing:
        lines[-1] += ": " + ", ".join(str(s.number) for s in missing) + "."
    section = ""
    for s in every:
        if s.section != section:
            section = s.section
            lines += ["", f"### {section}", "", "| | statement | source | tests |", "|---|---|---|---|"]
        cell = "<br>".join(tests.get(s.number, [])) or ("" if s.remark else "none yet")
        if s.remark:
            cell = f"{s.remark}<br>{cell}".removesuffix("<br>")
        lines.append(f"| {s.number} | {s.text} | {s.source} | {cell} |")
    return "\n".join([*lines, "", END])


def renewed(document: str) -> str:
    """The document with the table of now."""
    before, rest = document.split(BEGIN)
    return before + table() + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text()))
