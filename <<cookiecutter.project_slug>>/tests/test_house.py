"""The plan of the package: what may import what."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import <<cookiecutter.package_name>> as package

SOURCE = Path(package.__file__).parent
SERVER_MAY_IMPORT = {
    "bundle",
    "console",
    "errors",
    "experiment",
    "online_features",
    "prediction_log",
    "schema",
    "served_models",
    "settings",
}
SENT_ELSEWHERE = {"components.py"}  # its functions run as programs of their own
GROUND = {"errors", "console", "settings", "schema"}


def at_start(module: ast.AST) -> Iterable[ast.AST]:
    """What runs when a module is imported: neither functions nor blocks for the type checker."""
    for node in ast.iter_child_nodes(module):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If):
            yield node
            yield from at_start(node)


def imports(nodes: Callable[[ast.AST], Iterable[ast.AST]] = ast.walk) -> dict[str, set[str]]:
    """Each room (module, or sub-package) with the rooms that it imports, anywhere in its code."""
    rooms: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        room = rooms.setdefault(parts[0], set())
        for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level != len(parts) and node.module != package.__name__:
                continue
            within = node.module if node.level else None
            names = [within] if within else [alias.name for alias in node.names]
            room.update(name.partition(".")[0] for name in names)
    return {room: found - {room} for room, found in rooms.items()}


def test_no_circle() -> None:
    order = list(TopologicalSorter(imports()).static_order())
    assert order.index("settings") < order.index("training") < order.index("cli")


def test_the_server_imports_nothing_of_the_training() -> None:
    assert imports()["serving"] <= SERVER_MAY_IMPORT


def test_the_server_starts_without_the_feature_store() -> None:
    rooms = imports(at_start)
    found, pending = set[str](), {"serving"}
    while pending:
        found |= pending
        pending = set().union(*(rooms[room] for room in pending)) - found
    assert "online_features" in found
    assert not found & {"feature_store", "features", "data", "database"}
    assert "feature_store" in imports()["online_features"]


def test_the_ground_floor_imports_only_itself() -> None:
    for room in GROUND:
        assert imports()[room] <= GROUND


def test_modules_import_each_other_relatively() -> None:
    name = package.__name__
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            absolute = isinstance(node, ast.ImportFrom) and node.module and not node.level
            if absolute and path.name not in SENT_ELSEWHERE:
                assert node.module.partition(".")[0] != name, path
