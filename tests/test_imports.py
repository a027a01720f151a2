"""Imports go one way (docs: the design's section 1): each part of the package knows only those below it."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import lettermta

PACKAGE = Path(lettermta.__file__).parent
ROOT = Path(__file__).parent.parent

BOTTOM = {
    "message", "suppression", "header", "event", "webhook", "address_policy", "interfaces", "config", "metrics", "plugged", "policy",
    "database",
}  # fmt: skip
ABOVE = BOTTOM | {"smtp", "accounts"}
BELOW_OPS = ABOVE | {"spool", "submission", "delivery", "events"}
MAY_IMPORT = {
    "message": set(),
    "header": {"message"},
    "event": {"message"},
    "policy": {"message"},
    "suppression": {"message"},
    "webhook": set(),
    "address_policy": set(),
    "database": set(),
    "interfaces": {"message", "event", "webhook", "policy", "suppression"},
    "config": {"message", "event", "interfaces"},
    "metrics": set(),
    "plugged": set(),
    "smtp": BOTTOM,
    "outside": BOTTOM | {"smtp"},
    "accounts": BOTTOM,
    "spool": BOTTOM,
    "submission": ABOVE,
    "delivery": ABOVE,
    "events": ABOVE,
    "testing": BELOW_OPS,
    "ops": BELOW_OPS | {"outside", "webhook_sender", "wiring"},
    "wiring": BELOW_OPS | {"webhook_sender"},
    "webhook_sender": BELOW_OPS,
    "service": BELOW_OPS | {"ops", "outside", "wiring"},
}
"""For each part of lettermta the others it may import; every part may import itself."""

SQL = {"spool", "accounts", "database"}
"""The parts that may know SQL."""

CHOOSES_REACTOR = {"twisted.internet.reactor", "twisted.mail.smtp"}
"""What installs the default reactor by being imported, before twistd could choose one."""

IMPORTED_AS = {"pyopenssl": "OpenSSL", "dnspython": "dns", "attrs": "attr", "zope.interface": "zope"}
"""The modules of packages that are called otherwise."""

COMES_ALONG = {"idna"}
"""Named in docs/dependencies.md, required for us by twisted[tls], whose version decides."""

EXTRAS = ("options.extras_require/amqp",)
"""What users install for a part that not everybody wants; imported only where that part is used."""

Import = tuple[str, str, int, bool]
"""Importing module, imported name, line, and whether it happens when the module is loaded."""


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _statements(node: ast.AST, loading: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, loading
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_types(child)
            yield from _statements(child, loading and not later)


def _imports(name: str, path: Path) -> Iterator[Import]:
    """Each import of a module, by full names: ``from a import b`` is ``a.b`` when that is a module, else ``a``."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for statement, loading in _statements(ast.parse(path.read_text(), str(path))):
        if isinstance(statement, ast.Import):
            targets = [alias.name for alias in statement.names]
        else:
            base = statement.module or ""
            if statement.level:
                above = ".".join(package.split(".")[: len(package.split(".")) - statement.level + 1])
                base = f"{above}.{base}" if base else above
            full = [f"{base}.{alias.name}" for alias in statement.names]
            targets = [target if target in MODULES or target in CHOOSES_REACTOR else base for target in full]
        for target in dict.fromkeys(targets):
            yield name, target, statement.lineno, loading


IMPORTS = [found for name, path in MODULES.items() for found in _imports(name, path)]


def _part(module: str) -> str | None:
    """``smtp`` for lettermta.smtp.reply; None for what is not lettermta's, and for the package itself, which imports nothing."""
    names = module.split(".")
    return names[1] if names[0] == "lettermta" and len(names) > 1 else None


def _where(found: Import) -> str:
    name, target, line, _ = found
    return f"{MODULES[name].relative_to(PACKAGE.parent)}:{line} imports {target}"


def test_every_part_has_its_place() -> None:
    unknown = sorted({part for name in MODULES if (part := _part(name)) is not None} - set(MAY_IMPORT))
    assert not unknown, f"say in MAY_IMPORT of this test what these parts of lettermta may import: {', '.join(unknown)}"


def test_imports_go_one_way() -> None:
    wrong = []
    for found in IMPORTS:
        part, target = _part(found[0]), _part(found[1])
        if found[0] == "lettermta" and target is not None:
            wrong.append(f"{_where(found)}; the package itself may import none of its parts")
        elif part in MAY_IMPORT and target is not None and target != part and target not in MAY_IMPORT[part]:
            wrong.append(f"{_where(found)}; {part} may import only {', '.join(sorted(MAY_IMPORT[part])) or 'nothing of lettermta'}")
    assert not wrong, "imports against the layers:\n" + "\n".join(wrong)


def test_only_spool_and_accounts_know_sql() -> None:
    wrong = [_where(found) for found in IMPORTS if found[1].split(".")[0] in ("sqlite3", "_sqlite3") and _part(found[0]) not in SQL]
    assert not wrong, "SQL outside spool/, accounts/ and database.py:\n" + "\n".join(wrong)


def test_loading_a_module_chooses_no_reactor() -> None:
    wrong = [_where(found) for found in IMPORTS if found[1] in CHOOSES_REACTOR and (found[3] or found[1] == "twisted.mail.smtp")]
    assert not wrong, "these choose the reactor before twistd does:\n" + "\n".join(wrong)


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, target, _, loading in IMPORTS:
        if loading and target in MODULES and target != name:
            graph[name].add(target)
    circle = _circle(graph)
    assert circle is None, "modules import each other in a circle: " + " -> ".join(circle or [])


def _required(*options: str) -> set[str]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    lines = "\n".join(setup.get(*option.split("/")) for option in options).splitlines()
    return {re.split(r"[\[ ><=;]", line)[0].lower() for line in lines if line and not line.startswith("%")}


def test_what_is_imported_is_required() -> None:
    """A package that only comes along with another may be gone with the other's next version; an extra one may not be there."""
    required = {name.replace("-", "_") for name in _required("options/install_requires")}
    optional = _required(*EXTRAS)
    known = (
        required | {IMPORTED_AS[name] for name in required & set(IMPORTED_AS)} | set(sys.stdlib_module_names) | {"lettermta"} | COMES_ALONG
    )
    wrong = [
        _where(found) for found in IMPORTS if found[1].split(".")[0] not in known and (found[1].split(".")[0] not in optional or found[3])
    ]
    assert not wrong, "not in setup.cfg's install_requires:\n" + "\n".join(wrong)


def test_each_dependency_is_reasoned_for() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = {row.lower() for row in re.findall(r"^\| `([\w.-]+)", page, re.M)}
    required = _required("options/install_requires", *EXTRAS, "options.extras_require/test", "options.extras_require/dev")
    assert not required - rows, f"no row in docs/dependencies.md: {', '.join(sorted(required - rows))}"
    assert not rows - required - COMES_ALONG, f"not in setup.cfg, but in docs/dependencies.md: {', '.join(sorted(rows - required))}"


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for target in sorted(graph[name]):
            if (found := visit(target, [*path, name])) is not None:
                return found
        done.add(name)
        return None

    for start in sorted(graph):
        if (found := visit(start, [])) is not None:
            return found
    return None


def test_a_circle_would_be_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
