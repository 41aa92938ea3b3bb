#!/usr/bin/env python3
"""Measures the shape of the packages, and fails if it exceeds a limit:

    scripts/shape.py [FOLDER...]

Without folders it reads all three packages, in one pass over their syntax trees; with folders only those. It prints
every measure with its limit, and the places of each breach.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGES = ("platform/ponder", "gpu_worker/ponder_worker", "kernels/ponder_kernels")

MAX_FILES_IN_A_FOLDER = 16
MAX_ONE_IMPORTER_PERCENT = 20
MAX_FUNCTION_LINES_P90 = 30
MAX_DICTS_OF_ANY = 40
MAX_DUPLICATE_STEMS = 6
FRAGMENTS = frozenset({"Of", "Who", "That", "What", "Which", "Those"})
"""Words that no docstring opens with, beside lower-case ones."""
TABLES = ("strategies", "verifiers", "clouds", "providers", "rows", "ponder_kernels")
"""Folders of modules that a table lists, one row each.

Three more kinds of modules are rows wherever they are, because they exist to be listed by the one module that offers
them, not to be shared: routers, which the app includes; commands, which the command line names; and use cases, which
are the modules of `jobs` that are named after a function of their own, such as `cancel` and `sweep`. The other modules
of `jobs`, such as `ingestion`, are not rows.
"""
USE_CASES = "jobs"
"""The folder whose modules are use cases, one verb each."""
NOT_MODULES = ("__init__", "__main__")


@dataclass(frozen=True)
class Module:
    path: Path
    name: str
    tree: ast.Module

    @property
    def is_counted(self) -> bool:
        return self.path.stem not in NOT_MODULES

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def is_row(self) -> bool:
        """Whether a table lists it, as `TABLES` explains."""
        if set(self.path.parts) & set(TABLES):
            return True
        if USE_CASES in self.path.parts and any(
            isinstance(node, ast.FunctionDef) and node.name == self.path.stem for node in self.tree.body
        ):
            return True
        return any(
            (isinstance(node, ast.Assign) and ast.unparse(node).startswith("router = "))
            or (isinstance(node, ast.FunctionDef) and re.search(r"(command|group)\b", _decorators(node)))
            for node in self.tree.body
        )


@dataclass(frozen=True)
class Measure:
    """A measure and its limit. `places` are shown if `value` exceeds `limit`."""

    what: str
    value: float
    limit: float
    places: Sequence[str] = field(default_factory=list)

    @property
    def is_within(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        lines = [f"{'ok  ' if self.is_within else 'FAIL'} {self.what}: {self.value:g} (at most {self.limit:g})"]
        return "\n".join(lines if self.is_within else [*lines, *(f"       {place}" for place in self.places)])


def main(folders: Sequence[str]) -> int:
    modules = [module for folder in folders or PACKAGES for module in read(Path(folder))]
    if not modules:
        print("no Python files there", file=sys.stderr)
        return 2
    imports = imports_of(modules)
    measures = [
        flat_folders(modules),
        single_importers(modules, imports),
        function_lengths(modules),
        dicts_of_any(modules),
        duplicate_stems(modules),
        fragments(modules),
        cycles(imports),
        uncontracted(modules),
    ]
    print(*measures, sep="\n")
    return 0 if all(measure.is_within for measure in measures) else 1


def read(folder: Path) -> Iterator[Module]:
    """Yields the modules under a package's folder, or under a part of one."""
    root = folder.resolve()
    while (root.parent / "__init__.py").exists():
        root = root.parent
    for path in sorted(folder.rglob("*.py")):
        parts = path.resolve().relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(path, name, ast.parse(path.read_text()))


def imports_of(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Returns, for each module, those of the modules that it imports, at whatever place in it."""
    modules = list(modules)
    names = {module.name for module in modules}
    found: dict[str, set[str]] = {}
    for module in modules:
        targets: set[str] = set()
        for node in module.nodes:
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {name if name in names else node.module for name in inner}
        found[module.name] = (targets & names) - {module.name}
    return found


def flat_folders(modules: Iterable[Module]) -> Measure:
    sizes = Counter(str(module.path.parent) for module in modules if module.is_counted)
    places = [f"{folder}: {size}" for folder, size in sizes.most_common() if size > MAX_FILES_IN_A_FOLDER]
    return Measure("files in the fullest folder", max(sizes.values(), default=0), MAX_FILES_IN_A_FOLDER, places)


def single_importers(modules: Sequence[Module], imports: dict[str, set[str]]) -> Measure:
    """Counts the importers of a package as those of a module that only the package itself imports, to hand it on."""
    importers = defaultdict(list)
    for importer, targets in imports.items():
        for target in targets:
            importers[target].append(importer)
    for name, found in list(importers.items()):
        if found == [package := name.rpartition(".")[0]]:
            importers[name] = importers[package]
    counted = [module for module in modules if module.is_counted and not module.is_row]
    single = [module for module in counted if len(importers[module.name]) == 1]
    places = [f"{module.path}: only {importers[module.name][0]}" for module in single]
    percent = round(100 * len(single) / max(1, len(counted)), 1)
    return Measure(f"% of {len(counted)} modules with one importer", percent, MAX_ONE_IMPORTER_PERCENT, places)


def function_lengths(modules: Iterable[Module]) -> Measure:
    lengths = sorted(
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{module.path}:{node.lineno} {node.name}")
        for module in modules
        for node in module.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    p90 = lengths[int(0.9 * (len(lengths) - 1))][0] if lengths else 0
    places = [f"{place}: {length}" for length, place in reversed(lengths) if length > MAX_FUNCTION_LINES_P90]
    return Measure(f"lines of {len(lengths)} functions, 90th percentile", p90, MAX_FUNCTION_LINES_P90, places)


def dicts_of_any(modules: Iterable[Module]) -> Measure:
    places = [
        f"{module.path}:{node.lineno}"
        for module in modules
        for node in module.nodes
        if isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]"
    ]
    by_file = Counter(place.partition(":")[0] for place in places)
    return Measure(
        "dict[str, Any]", len(places), MAX_DICTS_OF_ANY, [f"{file}: {count}" for file, count in by_file.most_common()]
    )


def duplicate_stems(modules: Iterable[Module]) -> Measure:
    by_stem = defaultdict(list)
    for module in modules:
        if module.is_counted:
            by_stem[module.path.stem].append(str(module.path))
    places = [f"{stem}: {', '.join(paths)}" for stem, paths in by_stem.items() if len(paths) > 1]
    return Measure("file names that occur more than once", len(places), MAX_DUPLICATE_STEMS, places)


def fragments(modules: Iterable[Module]) -> Measure:
    places = [
        f"{module.path}:{node.lineno} {node.value.splitlines()[0][:60]}"
        for module in modules
        for node in _docstrings(module)
        if isinstance(node.value, str) and _is_fragment(node.value)
    ]
    return Measure("docstrings that open as a fragment", len(places), 0, places)


def _docstrings(module: Module) -> Iterator[ast.Constant]:
    """Yields the texts that stand as statements of their own, those after an assignment included."""
    for node in module.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def _is_fragment(docstring: str) -> bool:
    word = re.match(r"\w*", docstring.strip())
    opening = word[0] if word else ""
    return opening in FRAGMENTS or opening[:1].islower()


def cycles(imports: dict[str, set[str]]) -> Measure:
    """Counts the modules that lead back to themselves; shows the shortest way of each."""
    ways: dict[frozenset[str], str] = {}
    for module in imports:
        way = _way_back(module, imports)
        if way:
            ways.setdefault(frozenset(way), " -> ".join([*way, way[0]]))
    return Measure("import cycles", len(ways), 0, list(ways.values()))


def _way_back(start: str, imports: dict[str, set[str]]) -> list[str]:
    came_from: dict[str, str] = {}
    waiting = [start]
    for module in waiting:
        for target in sorted(imports[module]):
            if target == start:
                way = [module]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target not in came_from:
                came_from[target] = module
                waiting.append(target)
    return []


def uncontracted(modules: Iterable[Module]) -> Measure:
    """Counts the direct children of a package that no contract of layers names."""
    contracts = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer for contract in contracts if contract["type"] == "layers" for layer in contract["layers"]]
    named = {name.strip(" ()") for layer in layers for name in re.split(r"[|:]", layer)}
    children = {".".join(module.name.split(".")[:2]) for module in modules if module.is_counted}
    missing = sorted(name for name in children if "." in name and not {name, name.split(".")[0]} & named)
    return Measure("root modules under no contract", len(missing), 0, missing)


def _decorators(node: ast.FunctionDef) -> str:
    return " ".join(ast.unparse(decorator) for decorator in node.decorator_list)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
