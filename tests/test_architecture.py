"""The shape of the source, checked with the standard library alone: imports, lengths of files, names.

The import rules stand once, in pyproject.toml's import-linter section; this test reads them there and checks them on
the syntax trees, so that they hold even where import-linter is not installed. import-linter remains the second judge.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fabric", "provider", "nodes")
LONGEST_FILE = 400

LONGER_FILES: dict[str, tuple[int, str]] = {}
"""Path -> (its own limit, why it is not split). An entry that is not needed any more fails the test."""

SCAPY_IMPORTERS = ("fabric.wire.scapy_layers", "fabric.capture.santap")
NAMELESS_MODULES = ("common", "helpers", "misc", "util", "utils")
BARE_SWITCH = re.compile(r"^_?switch(es)?$|^_?Switch$")
"""A name must say which: network switch (forwards frames) or sockets switch (layered provider)."""


# ------------------------------------------------------------------ reading


def source_files(*folders: str) -> list[Path]:
    """Python files below ``folders``, in a fixed order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """``fabric/cm/__init__.py`` -> ``fabric.cm``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, module: str, is_package: bool, known: set[str]) -> list[str]:
    """Full names of all that a module imports, anywhere in it; ``known`` tells submodules from attributes."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.append(submodule if submodule in known else base)
    return found


def is_under(module: str, ancestor: str) -> bool:
    return module == ancestor or module.startswith(ancestor + ".")


@cache
def import_graph() -> dict[str, list[str]]:
    """Module -> what it imports."""
    paths = {module_name(path): path for path in source_files(*PACKAGES)}
    return {
        module: imports_of(ast.parse(path.read_text()), module, path.name == "__init__.py", set(paths))
        for module, path in paths.items()
    }


def contracts(kind: str) -> list[dict[str, Any]]:
    section = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [contract for contract in section["contracts"] if contract["type"] == kind]


# ------------------------------------------------------------ import rules


def layer_violations(graph: dict[str, list[str]], layers: list[str]) -> list[str]:
    """Imports from a lower into a higher layer (listed first), or between siblings separated by ``|``."""
    rank = {
        name.strip(" ()"): (number, "|" in layer)
        for number, layer in enumerate(layers)
        for name in re.split(r"[|:]", layer)
    }

    def layer_of(module: str) -> str | None:
        return next((name for name in rank if is_under(module, name)), None)

    found = []
    for module, imported in graph.items():
        mine = layer_of(module)
        for other in imported:
            theirs = layer_of(other)
            if mine is None or theirs is None or mine == theirs:
                continue
            (my_rank, independent), (their_rank, _) = rank[mine], rank[theirs]
            if their_rank < my_rank or (their_rank == my_rank and independent):
                found.append(f"{module} imports {other}")
    return found


def forbidden_chains(graph: dict[str, list[str]], contract: dict[str, Any]) -> list[str]:
    """Chains of imports from a source module to a forbidden one; only of length one if indirect imports are allowed."""
    ignored = [tuple(part.strip() for part in text.split("->")) for text in contract.get("ignore_imports", [])]

    def is_ignored(importer: str, imported: str) -> bool:
        return any(
            re.fullmatch(re.escape(left).replace(r"\*", "[^.]+"), importer) and is_under(imported, right)
            for left, right in ignored
        )

    def is_forbidden(module: str) -> bool:
        return any(is_under(module, name) for name in contract["forbidden_modules"])

    found = []
    sources = [module for module in graph if any(is_under(module, name) for name in contract["source_modules"])]
    for source in sources:
        seen, chains = {source: True}, [[source]]
        for chain in chains:
            for imported in graph.get(chain[-1], []):
                if imported in seen or is_ignored(chain[-1], imported):
                    continue
                if is_forbidden(imported):
                    found.append(" -> ".join([*chain, imported]))
                elif not contract.get("allow_indirect_imports"):
                    seen[imported] = True
                    chains.append([*chain, imported])
    return found


@pytest.mark.parametrize("contract", contracts("layers"), ids=lambda contract: contract["name"])
def test_layers(contract: dict[str, Any]):
    assert layer_violations(import_graph(), contract["layers"]) == []


@pytest.mark.parametrize("contract", contracts("forbidden"), ids=lambda contract: contract["name"])
def test_forbidden_imports(contract: dict[str, Any]):
    assert forbidden_chains(import_graph(), contract) == []


def test_every_kind_of_contract_is_checked_here():
    section = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert tuple(section["root_packages"]) == PACKAGES
    assert [contract for contract in section["contracts"] if contract["type"] not in ("layers", "forbidden")] == []


def test_modules_named_in_the_contracts_exist():
    """A contract about a module that was renamed would hold for ever and mean nothing."""
    modules = import_graph()
    named = [name for contract in contracts("forbidden") for name in contract["source_modules"]]
    named += [
        name.strip(" ()")
        for contract in contracts("layers")
        for layer in contract["layers"]
        for name in re.split(r"[|:]", layer)
    ]
    assert [name for name in named if name not in modules] == []


def test_only_the_layers_and_the_tap_import_scapy():
    graph = import_graph()
    importers = [module for module, imported in graph.items() if any(is_under(name, "scapy") for name in imported)]
    assert [module for module in importers if module not in SCAPY_IMPORTERS] == []


def test_only_the_live_drivers_import_zmq():
    graph = import_graph()
    importers = [module for module, imported in graph.items() if any(is_under(name, "zmq") for name in imported)]
    assert [module for module in importers if not is_under(module, "fabric.live")] == []


# ------------------------------------------------------------- files, names


def bare_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every identifier, and every whole string, that says "switch" and not which."""
    for node in ast.walk(tree):
        names: list[str | None] = []
        if isinstance(node, ast.Name):
            names.append(node.id)
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.arg | ast.keyword):
            names.append(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.alias):
            names += [node.asname, *node.name.split(".")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.append(node.value)
        for name in names:
            if name and BARE_SWITCH.match(name):
                yield getattr(node, "lineno", 0), name


def test_files_are_short():
    too_long, needless = [], []
    for path in source_files(*PACKAGES, "tests"):
        name, lines = str(path.relative_to(ROOT)), len(path.read_text().splitlines())
        limit, reason = LONGER_FILES.get(name, (LONGEST_FILE, ""))
        if lines > limit:
            too_long.append(f"{name} has {lines} lines, limit {limit}: split it by role")
        if reason and lines <= LONGEST_FILE:
            needless.append(name)
    assert too_long == []
    assert needless == []
    assert [name for name in LONGER_FILES if not (ROOT / name).exists()] == []


def test_no_name_leaves_open_which_switch_is_meant():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name!r}; say network switch or sockets switch"
        for path in source_files(*PACKAGES, "tests")
        if path != Path(__file__).resolve()
        for line, name in bare_names(ast.parse(path.read_text()))
    ]
    paths = [str(path.relative_to(ROOT)) for path in source_files(*PACKAGES, "tests")]
    found += [path for path in paths if any(BARE_SWITCH.match(part) for part in Path(path).with_suffix("").parts)]
    assert found == []


def test_no_module_is_named_after_nothing():
    paths = [path for path in source_files(*PACKAGES, "tests") if path.stem in NAMELESS_MODULES]
    assert paths == []


def test_every_public_module_says_what_it_is():
    silent = []
    for path in source_files(*PACKAGES):
        is_private = path.stem.startswith("_") and path.stem not in ("__init__", "__main__")
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        if not is_private and len(text.split()) < 3:
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_nothing_is_left_for_later():
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files(*PACKAGES, "tests")
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_folders_that_must_not_be_packages():
    """``docker/__init__.py`` would hide the Docker SDK; tests are collected in importlib mode."""
    found = [path for folder in ("docker", "tests", "topologies") for path in (ROOT / folder).rglob("__init__.py")]
    assert found == []


# --------------------------------------------------- the checkers can fail


def test_checker_finds_an_upward_and_a_sideways_import():
    layers = ["top", "left | right", "one : two", "base"]
    graph = {
        "base.x": ["top"],
        "left.a": ["right.b", "base"],
        "one": ["two", "base"],
        "top": ["left.a"],
        "two": ["left"],
    }
    assert layer_violations(graph, layers) == [
        "base.x imports top",
        "left.a imports right.b",
        "two imports left",
    ]


def test_checker_finds_an_indirect_forbidden_import():
    graph = {"engine": ["middle"], "middle": ["driver", "rng"], "driver": ["zmq.green"], "rng": ["random"]}
    contract = {"source_modules": ["engine"], "forbidden_modules": ["zmq", "random"]}
    assert forbidden_chains(graph, contract) == [
        "engine -> middle -> driver -> zmq.green",
        "engine -> middle -> rng -> random",
    ]
    assert len(forbidden_chains(graph, contract | {"ignore_imports": ["rng -> random"]})) == 1
    assert forbidden_chains(graph, contract | {"allow_indirect_imports": True}) == []


def test_checker_reads_all_forms_of_import():
    tree = ast.parse(
        "import a.b\nfrom . import sibling, attribute\nfrom ..up import thing\ndef f():\n    from x import y as z\n"
    )
    known = {"pack.age.sibling", "pack.up.thing"}
    assert imports_of(tree, "pack.age.module", False, known) == [
        "a.b",
        "pack.age.sibling",
        "pack.age",
        "pack.up.thing",
        "x",
    ]


def test_checker_finds_bare_names():
    text = "class Switch: ...\ndef f(switch, *, network_switch): return g(_switch=1).switch\nrole = 'switch'\n"
    found = sorted(name for _, name in bare_names(ast.parse(text)))
    assert found == ["Switch", "_switch", "switch", "switch", "switch"]
