"""The imports of the package: one direction, no cycle, no torch where none is needed, no house of horrors."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "surgery"

# A room imports from rooms above it only.
ROOMS = (
    *(
        "errors",
        "version",
        "bundled",
        "tested",
        "damage",
        "files",
        "finite",
        "kept",
        "written",
        "outputs",
        "safe_text",
        "progress",
        "text_table",
    ),
    *("pattern_matcher", "pattern_time"),
    *("internals", "torch_internals", "diffusers_internals"),
    *(
        "spec",
        "profiles",
        "tracing",
        "dit",
        "calls",
        "anatomy",
        "pipelines",
        "plan",
        "graph",
        "checkpoint",
        "verify",
        "publish",
    ),
    *(
        "activations",
        "metrics",
        "spectra",
        "experiment",
        "training",
        "export",
        "report",
        "demo",
        "face",
        "commands",
        "testing",
    ),
)
FORBIDDEN_ARROWS = {
    "graph": {"checkpoint"},
    "checkpoint": {"graph"},
    "metrics": set(ROOMS) - {"errors", "damage", "files", "metrics"},  # knows nothing of surgery
}
LIGHT = {  # rooms and modules, and what must not be loaded with them
    "surgery": {"torch", "diffusers", "transformers", "numpy"},
    "surgery.internals": {"torch", "diffusers", "numpy"},
    "surgery.diffusers_internals": {"torch", "diffusers", "numpy"},
    "surgery.spec": {"torch", "diffusers", "transformers", "numpy"},
    "surgery.profiles": {"torch", "diffusers"},
    "surgery.plan": {"torch", "diffusers"},
    "surgery.anatomy.anatomy": {"torch", "diffusers"},
    "surgery.anatomy.known": {"torch", "diffusers", "numpy"},
    "surgery.checkpoint.write": {"torch", "diffusers", "numpy"},
    "surgery.publish.worker": {"torch", "diffusers", "numpy"},
    "surgery.export": {"torch", "diffusers", "numpy"},
    "surgery.report": {"torch", "diffusers"},
    "surgery.report.draw_text": {"torch", "diffusers", "numpy", "matplotlib"},
    "surgery.report.draw_svg": {"torch", "diffusers", "numpy", "matplotlib"},
    "surgery.report.plot_profile": {"torch", "diffusers"},
    "surgery.commands.main": {"torch", "diffusers", "numpy", "matplotlib"},
    "surgery.anatomy.resolve": {"torch", "diffusers"},
}
FENCES = {"surgery.torch_internals", "surgery.diffusers_internals"}  # where names that libraries keep to themselves are
PRIVATE_MODULES = {"diffusers.loaders.single_file_utils", "diffusers.loaders.single_file_model"}  # in all but name
PRIVATE_PATH = re.compile(r"(torch|diffusers|accelerate|transformers)(\.\w+)*\._\w+(\.\w+)*")
OUR_STRINGS = {  # that look like names which a library keeps to itself, and are not
    "_surgery": "where a variant keeps its graphs",
    "_fields": "documented, of named tuples",
    "_mask": "an ending",
    **dict.fromkeys(("_class_name", "_diffusers_version", "_name_or_path"), "keys in config.json files"),
}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


@dataclass(frozen=True)
class Import:
    """`source` imports `target`, when it is loaded or later (inside a function, or for the type checker only)."""

    source: str
    target: str
    line: int
    on_load: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def list_modules(package: Path) -> dict[str, Path]:
    """The dotted name of every module of a package -> its file; a package is its `__init__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def list_imports(modules: dict[str, Path]) -> list[Import]:
    """Every import of every module, wherever it stands; one for each name of `from package import module`."""
    return [
        Import(source, target, node.lineno, on_load)
        for source, path in modules.items()
        for node, on_load in imports_in(path)
        for target in targets_of(node, source, path, modules)
    ]


@functools.cache  # no file changes while these tests run
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports_in(path: Path) -> tuple[tuple[ast.Import | ast.ImportFrom, bool], ...]:
    return tuple(import_nodes(parse(path), on_load=True))


def import_nodes(node: ast.AST, *, on_load: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, on_load
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for part in node.body:
            yield from import_nodes(part, on_load=False)
        for part in node.orelse:
            yield from import_nodes(part, on_load=on_load)
    else:
        later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from import_nodes(child, on_load=on_load and not later)


def targets_of(node: ast.Import | ast.ImportFrom, source: str, path: Path, modules: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        anchor = source.split(".") if path.name == "__init__.py" else source.split(".")[:-1]
        base = ".".join([*anchor[: len(anchor) - node.level + 1], *([base] if base else [])])
    named = [f"{base}.{alias.name}" for alias in node.names]
    return list(dict.fromkeys(name if name in modules else base for name in named))


def room_of(module: str) -> str | None:
    """The room of a module of the package; None for the package itself and for everything outside."""
    return module.split(".")[1] if module.startswith("surgery.") else None


def unknown_rooms(modules: dict[str, Path]) -> list[str]:
    return [f"{name} is in no room of ROOMS" for name in modules if room_of(name) not in (None, *ROOMS)]


def arrows_back(modules: dict[str, Path]) -> list[str]:
    """Imports from a room below, or between rooms that must not know each other."""
    found = []
    for item in list_imports(modules):
        source, target = room_of(item.source), room_of(item.target)
        if source not in ROOMS or target not in ROOMS:
            continue
        if ROOMS.index(target) > ROOMS.index(source) or target in FORBIDDEN_ARROWS.get(source, ()):
            found.append(str(item))
    return found


def cycle(modules: dict[str, Path]) -> list[str]:
    """The modules of a cycle of imports, later ones and those for the type checker included; empty without one.

    The package itself is no part of it: it only names what it imports at first use.
    """
    graph: dict[str, set[str]] = {name: set() for name in modules if name != "surgery"}
    for item in list_imports(modules):
        if item.source in graph and item.target in graph:
            graph[item.source].add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def heavy_chains(modules: dict[str, Path], start: str, heavy: set[str]) -> list[str]:
    """A chain of imports on loading from a room or module to each heavy package that it reaches."""
    on_load: dict[str, set[str]] = {}
    for item in list_imports(modules):
        if item.on_load:
            on_load.setdefault(item.source, set()).add(item.target)
    starts = [name for name in modules if name == start or (start.count(".") and name.startswith(f"{start}."))]
    pending = [(name,) for name in starts]
    seen, found = set(starts), []
    while pending:
        chain = pending.pop()
        parents = {chain[-1].rpartition(".")[0]} & modules.keys()  # loading a module loads its package first
        for target in sorted(on_load.get(chain[-1], set()) | parents):
            if target.split(".")[0] in heavy:
                found.append(" -> ".join((*chain, target)))
            elif target in modules and target not in seen:
                seen.add(target)
                pending.append((*chain, target))
    return found


def bad_names(modules: dict[str, Path]) -> list[str]:
    """Modules whose name says nothing, or is one of the standard library's."""
    banned = NAMELESS | sys.stdlib_module_names
    return [name for name in modules if name.rpartition(".")[2] in banned]


def is_private(name: str) -> bool:
    return name.startswith("_") and name.isidentifier() and name.strip("_") != "" and not name.endswith("__")


def private_reaches(modules: dict[str, Path]) -> list[str]:
    """Where a module that is no fence reaches for a private name of a library."""
    found = []
    for source, path in modules.items():
        if source not in FENCES:
            tree = parse(path)
            own = own_names(tree)
            reached = [(node, name) for node in ast.walk(tree) for name in names_reached(node, own)]
            found += [f"{source}:{getattr(node, 'lineno', 0)} {name}" for node, name in reached]
    return found


def own_names(tree: ast.Module) -> set[str]:
    """What a module defines itself: functions, classes, variables, attributes of self."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    return found


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def names_reached(node: ast.AST, own: set[str]) -> list[str]:
    """What a node reaches for that is private and not the module's own."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names if is_private_path(alias.name)]
        case ast.ImportFrom(module=str(module), names=names):
            paths = [f"{module}.{alias.name}" for alias in names]
            return [path for path in paths if is_private_path(path)]
        case ast.Attribute(value=value, attr=name) if is_private(name):
            is_allowed = (is_self(value) and name in own) or ast.unparse(value) in sys.stdlib_module_names
            return [] if is_allowed else [f".{name}"]
        case ast.Constant(value=str(text)) if PRIVATE_PATH.fullmatch(text) or is_private(text):
            return [] if text in own | OUR_STRINGS.keys() else [repr(text)]
        case ast.ClassDef(bases=bases):
            return [name for base in bases if (name := ast.unparse(base)) in ("Tracer", "fx.Tracer")]
    return []


def is_private_path(path: str) -> bool:
    """Whether an import names what a library (not Python's own) keeps to itself."""
    first, *parts = path.split(".")
    in_private_module = any(path == name or path.startswith(f"{name}.") for name in PRIVATE_MODULES)
    return first not in sys.stdlib_module_names and (in_private_module or any(map(is_private, parts)))


# The package as it is.


@pytest.fixture(scope="module")
def modules() -> dict[str, Path]:
    found = list_modules(PACKAGE)
    assert len(found) > 40
    return found


def test_every_module_is_in_a_known_room(modules):
    assert unknown_rooms(modules) == []


def test_no_import_runs_back(modules):
    assert arrows_back(modules) == []


def test_there_is_no_cycle(modules):
    assert cycle(modules) == []


@pytest.mark.parametrize("start", LIGHT)
def test_light_modules_reach_nothing_heavy(modules, start):
    assert start in modules
    assert heavy_chains(modules, start, LIGHT[start]) == []


def test_no_module_is_nameless_or_named_as_one_of_the_standard_library(modules):
    assert bad_names(modules) == []


def test_private_names_of_libraries_are_reached_in_their_modules_only(modules):
    assert modules.keys() >= FENCES
    assert private_reaches(modules) == []
    assert private_reaches(list_modules(PACKAGE.parent / "benchmarks")) == []


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_planning_loads_neither_torch_nor_diffusers():
    loaded = loaded_after("import surgery.plan.lower, surgery.spec.load, surgery.profiles.means")
    assert "surgery" in loaded
    assert loaded.isdisjoint({"torch", "diffusers", "transformers"})


def test_the_package_itself_loads_neither_numpy_nor_torch():
    loaded = loaded_after("import surgery")
    assert "surgery" in loaded
    assert loaded.isdisjoint({"numpy", "torch", "yaml"})


# Trees that are wrong on purpose: each check finds what it is for.

GOOD = {
    "errors": "",
    "bundled": "",
    "spec.load": "import yaml\nfrom surgery.errors import SpecError",
    "anatomy.anatomy": "import json",
    "anatomy.sources": "from surgery.bundled import demo_folder\ndef f():\n    import torch",
    "plan.lower": "from surgery.spec import load\nfrom ..anatomy.anatomy import Anatomy",
    "graph.variant": "import torch\nfrom surgery.plan.lower import lower_spec",
    "checkpoint.write": "from surgery.plan import lower",
    "torch_internals": "import torch._dynamo\ndef f(model):\n    return model._modules",
    "tracing.values": "import os\nclass A:\n    def f(self):\n        self._x = os._exit\n        return self._x",
    "metrics.paired": "import torch\nfrom surgery.errors import InputError",
}


def modules_of(tmp_path: Path, **changed: str) -> dict[str, Path]:
    """The good tree with some modules (dots as double underscores) changed or added."""
    sources = {**GOOD, **{name.replace("__", "."): text for name, text in changed.items()}}
    for name, text in sources.items():
        path = tmp_path.joinpath("surgery", *name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in [path for path in (tmp_path / "surgery").rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    (tmp_path / "surgery" / "__init__.py").touch()
    return list_modules(tmp_path / "surgery")


def findings(modules: dict[str, Path]) -> list[str]:
    """Everything that any of the checks finds."""
    heavy = [chain for start, names in LIGHT.items() for chain in heavy_chains(modules, start, names)]
    reached = private_reaches(modules)
    return [*unknown_rooms(modules), *arrows_back(modules), *cycle(modules), *heavy, *bad_names(modules), *reached]


def test_a_good_tree_has_no_findings(tmp_path):
    assert findings(modules_of(tmp_path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "from surgery.plan.lower import lower_spec",
        "from ..plan import lower",
        "import surgery.plan.lower",
        "def f():\n    from surgery.plan import lower",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from surgery.plan.lower import lower_spec",
    ],
    ids=["from", "relative", "import", "in a function", "for the type checker"],
)
def test_an_arrow_that_runs_back_is_found(tmp_path, text):
    modules = modules_of(tmp_path, spec__places=text)
    assert [finding.rpartition(":")[0] for finding in arrows_back(modules)] == ["surgery.spec.places"]


@pytest.mark.parametrize(
    "changed",
    [
        {"graph__variant": "from surgery.checkpoint.write import write"},
        {"checkpoint__write": "def f():\n    import surgery.graph.variant"},
        {"metrics__paired": "from surgery.plan.lower import lower_spec"},
    ],
    ids=["graph to checkpoint", "checkpoint to graph", "metrics to plan"],
)
def test_rooms_that_must_not_know_each_other_are_kept_apart(tmp_path, changed):
    assert len(arrows_back(modules_of(tmp_path, **changed))) == 1


@pytest.mark.parametrize(
    "back",
    ["from surgery.spec.load import Spec", "def f():\n    from surgery.spec import load"],
    ids=["on loading", "in a function"],
)
def test_a_cycle_is_found(tmp_path, back):
    modules = modules_of(tmp_path, spec__places=back, spec__load="from surgery.spec.places import Place")
    assert set(cycle(modules)) == {"surgery.spec.load", "surgery.spec.places"}
    assert arrows_back(modules) == []


@pytest.mark.parametrize(
    ("changed", "chain"),
    [
        ({"spec__load": "import torch.nn"}, "surgery.spec.load -> torch.nn"),
        (
            {"errors": "try:\n    from numpy import ndarray\nexcept ImportError:\n    pass"},
            "surgery.spec.load -> surgery.errors -> numpy",
        ),
        (
            {"spec__load": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import torch"},
            "surgery.spec.load -> torch",
        ),
    ],
    ids=["straight", "through another module", "in the other branch"],
)
def test_a_heavy_package_within_reach_of_a_spec_is_found(tmp_path, changed, chain):
    modules = modules_of(tmp_path, **changed)
    assert heavy_chains(modules, "surgery.spec", LIGHT["surgery.spec"]) == [chain]


@pytest.mark.parametrize("name", ["plan__utils", "plan__copy", "spec__select", "spec__types", "anatomy__inspect"])
def test_a_name_that_says_nothing_or_is_taken_is_found(tmp_path, name):
    assert bad_names(modules_of(tmp_path, **{name: ""})) == [f"surgery.{name.replace('__', '.')}"]


def test_a_new_package_must_be_given_its_place(tmp_path):
    modules = modules_of(tmp_path, cellar__wine="")
    assert unknown_rooms(modules) == [f"surgery.cellar{end} is in no room of ROOMS" for end in ("", ".wine")]


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("import torch._dynamo", "torch._dynamo"),
        ("from torch._subclasses.fake_tensor import FakeTensorMode", "torch._subclasses.fake_tensor.FakeTensorMode"),
        ("def f():\n    from torch.utils import _pytree as tree", "torch.utils._pytree"),
        ("from diffusers.loaders import single_file_utils", "diffusers.loaders.single_file_utils"),
        ("from diffusers.loaders.single_file_model import TABLE", "diffusers.loaders.single_file_model.TABLE"),
        ("def f(sums):\n    torch._foreach_add_(sums, sums)", "._foreach_add_"),
        ("class A(Module):\n    def f(self):\n        return self._modules", "._modules"),
        ("class A(Module):\n    def f(self, other):\n        self._x = other._x", "._x"),
        ("def f(model):\n    return vars(model).get('_internal_dict')", "'_internal_dict'"),
        ("def f(model):\n    return getattr(model, '_hf_hook', None)", "'_hf_hook'"),
        ("def f(model):\n    model.__dict__['_old_forward'] = None", "'_old_forward'"),
        ("NAMES = ('_forward_hooks',)", "'_forward_hooks'"),
        ("mode = importlib.import_module('torch._guards')", "'torch._guards'"),
        ("class A(fx.Tracer):\n    pass", "fx.Tracer"),
    ],
)
def test_a_private_name_that_is_reached_elsewhere_is_found(tmp_path, text, reached):
    found = private_reaches(modules_of(tmp_path, plan__cost=text))
    assert [finding.partition(" ")[2] for finding in found] == [reached]
    assert found[0].startswith("surgery.plan.cost:")
