"""Finds the modules that a run imports in the sources, without importing them.

A cell is reused while nothing that its run imports has changed. The import closure is an upper
bound: imports inside functions are followed too, and so are class paths in strings, because recipes
and measurements name classes in this way. Imports for type checkers only are not followed, except
to find the module behind a lazy export.
"""

import ast
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import lightning_plugins
from lightning_plugins.claims.fingerprints import sha256_of
from lightning_plugins.recipes import list_recipes, load_recipe

_PACKAGE = lightning_plugins.__name__
_FOLDERS_OUTSIDE = ("callbacks", "datamodules", "litmodels", "simulators")
_NOT_FOLLOWED = f"{_PACKAGE}.reports"  # how results are shown changes no result
_CLASS_PATH = re.compile(rf"{_PACKAGE}(?:\.\w+)+")
_RECIPE = re.compile(r"\w+/\w+(?:\+\w+)*")


@dataclass(frozen=True)
class Closure:
    """What a run imports.

    Attributes:
        files: Name -> file, of modules of this package and of the files that they name.
        recipes: Name -> merged configuration, of the packaged recipes that are named.
        packages: Top-level names of the other packages that they import.
    """

    files: dict[str, Path]
    recipes: dict[str, dict[str, Any]]
    packages: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files and recipes, sorted."""
        return tuple(sorted([*self.files, *self.recipes]))

    def sha256(self) -> str:
        """Return a hash of the recipes and of the files' code, without comments and docstrings."""
        files = {name: _code(path).sha256 for name, path in self.files.items()}
        return sha256_of({"files": files, "recipes": self.recipes})


def closure_of_run(run: Callable[..., object], config: object = None) -> Closure:
    """Return what a function imports, and what the strings of its configuration name."""
    return import_closure(Path(inspect.getfile(run)).resolve(), _strings(config))


@cache
def package_modules() -> dict[str, Path]:
    """Return the file of every module of this package by its name, in a wheel or a checkout."""
    modules = _modules_below(_PACKAGE, Path(lightning_plugins.__file__).resolve().parent)
    for folder in _FOLDERS_OUTSIDE:
        name = f"{_PACKAGE}.{folder}"
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or []) if spec else []:
            modules |= _modules_below(name, Path(location).resolve())
    return modules


def import_closure(
    start: Path, texts: Iterable[str] = (), modules: Mapping[str, Path] | None = None
) -> Closure:
    """Return the closure of a source file, and of the class paths and recipes in texts.

    Args:
        start: The file with the run function, inside or outside of this package.
        texts: The strings of a configuration.
        modules: The modules of this package; None finds them.
    """
    known = package_modules() if modules is None else modules
    resolver = _Resolver(known)
    names = {path: name for name, path in known.items()}
    files: dict[str, Path] = {}
    recipes: dict[str, dict[str, Any]] = {}
    packages: set[str] = set()
    waiting = [(names.get(start, start.name), start)]

    def add_named(strings: Iterable[str]) -> None:
        for text in strings:
            if _CLASS_PATH.fullmatch(text):
                waiting.extend((one, known[one]) for one in resolver.of_path(text))
            elif text not in recipes and _is_recipe(text):
                recipes[text] = load_recipe(text)
                add_named(_strings(recipes[text]))

    add_named(texts)
    while waiting:
        name, path = waiting.pop()
        if name in files or name.startswith(_NOT_FOLLOWED):
            continue
        files[name] = path
        code = _code(path)
        for wanted in code.imports:
            found = resolver.of_import(name, path, wanted)
            waiting += [(one, known[one]) for one in found]
            if not found and wanted.level == 0:
                packages.add(wanted.module.split(".")[0])
        add_named(code.strings)
        files.update(_data_files(name, path, code.strings))
    return Closure(files, recipes, frozenset(packages - {_PACKAGE}))


@dataclass(frozen=True)
class _Import:
    """``import module``, or ``from module import name``, ``level`` dots above."""

    module: str
    name: str
    level: int


@dataclass(frozen=True)
class _Code:
    """What a source file imports, exports and says, and the hash of its code."""

    imports: tuple[_Import, ...]
    exports: dict[str, _Import]
    strings: frozenset[str]
    is_lazy: bool
    sha256: str


class _Resolver:
    """Maps names to the modules of this package that define them."""

    def __init__(self, modules: Mapping[str, Path]) -> None:
        self._modules = modules

    def of_import(self, name: str, path: Path, wanted: _Import) -> set[str]:
        """Return the modules that an import of module ``name`` executes."""
        base = wanted.module
        if wanted.level:
            parts = name.split(".")
            is_package = path.name == "__init__.py"
            above = parts[: len(parts) - wanted.level + is_package]
            base = ".".join([*above, *filter(None, [base])])
        return self.of_path(f"{base}.{wanted.name}" if wanted.name else base)

    def of_path(self, dotted: str) -> set[str]:
        """Return the module that defines a dotted name, and the packages around it."""
        if not dotted.startswith(_PACKAGE):
            return set()
        parts = dotted.split(".")
        for end in range(len(parts), 0, -1):
            module = ".".join(parts[:end])
            if module in self._modules:
                found = self._around(module)
                code = _code(self._modules[module])
                exported = code.exports.get(parts[end]) if end < len(parts) else None
                if exported is not None and code.is_lazy:
                    found |= self.of_import(module, self._modules[module], exported)
                return found
        return set()

    def _around(self, module: str) -> set[str]:
        """Return a module and its packages, without those that only export lazily."""
        parts = module.split(".")
        names = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        return {
            name
            for name in names
            if name in self._modules and not _code(self._modules[name]).is_lazy
        }


def _strings(value: object) -> Iterator[str]:
    """Yield all strings of plain data; a recipe can also be named with the key ``recipe``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _is_recipe(text: str) -> bool:
    base, *overlays = text.split("+")
    return (
        _RECIPE.fullmatch(text) is not None
        and {
            base,
            *(f"+{one}" for one in overlays),
        }
        <= _recipe_names()
    )


@cache
def _recipe_names() -> frozenset[str]:
    return frozenset(recipe.name for recipe in list_recipes())


def _modules_below(name: str, root: Path) -> dict[str, Path]:
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join((name, *parts))] = path
    return found


def _data_files(name: str, path: Path, strings: Iterable[str]) -> dict[str, Path]:
    """Return the files beside a module that it names, such as the source of a kernel."""
    named = (text for text in strings if re.fullmatch(r"\w[\w-]*\.(?!py$)[a-z]\w*", text))
    return {f"{name}/{one}": path.with_name(one) for one in named if path.with_name(one).is_file()}


def _code(path: Path) -> _Code:
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@cache
def _parsed(path: Path, modified_ns: int, size: int) -> _Code:
    content = path.read_bytes()
    if path.suffix != ".py":
        return _Code((), {}, frozenset(), False, hashlib.sha256(content).hexdigest())
    tree = ast.parse(content)
    exports = {
        alias.asname or alias.name: _Import(node.module or "", alias.name, node.level)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    is_lazy = path.name == "__init__.py" and any(
        isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_exports"
        for node in ast.walk(tree)
    )
    run = _WithoutTypes().visit(_without_docstrings(tree))
    imports = () if is_lazy else tuple(_imports(run))
    strings = frozenset(
        node.value
        for node in ast.walk(run)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return _Code(
        imports, exports, strings, is_lazy, hashlib.sha256(ast.dump(run).encode()).hexdigest()
    )


def _imports(tree: ast.AST) -> Iterator[_Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Import(alias.name, "", 0)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = "" if alias.name == "*" else alias.name
                yield _Import(node.module or "", name, node.level)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Expr(ast.Constant(None))
    return tree


class _WithoutTypes(ast.NodeTransformer):
    """Removes what ``if TYPE_CHECKING`` guards."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", "")):
            node.body = [ast.Pass()]
        self.generic_visit(node)
        return node
