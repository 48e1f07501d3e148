"""Docstrings of the public names -> docs/api.md. The sources are parsed, nothing is imported. `make docs` runs it."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
TESTING = "surgery.testing"
DIT = "surgery.dit"
WIDTH = 100  # of a signature on one line
HEAD = """# The Python interface

Written by `make docs` from the docstrings. Names are those of `surgery` unless they have a longer path. Everything
that a user can cause raises a `SurgeryError`, whose text says what is wrong and what to write instead.
"""
HELD = (  # what the data types hold
    ("surgery.anatomy.anatomy", ("Stack", "BlockKind", "Component", "TokenOutput")),
    ("surgery.plan.schedule", ("Schedule", "Layer", "Group", "Repetition")),
    ("surgery.plan.plan", ("ReplacedComponent",)),
    ("surgery.profiles.layer_profile", ("ProfiledStack", "StreamSums", "Moments")),
    ("surgery.experiment.spectrum", ("Spectra",)),
    ("surgery.spectra.trajectory", ("Trajectories", "ViewCurves")),
    ("surgery.spectra.band_damage", ("BandDamage",)),
)
FURTHER = (  # public, and not named by the package itself
    ("surgery.profiles.profile_file", ("read_profile", "write_profile", "merge_profiles")),
    ("surgery.profiles.means", ("read_means", "write_means", "MeansFile")),
    ("surgery.activations.recorder", ("Recorder",)),
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Public(NamedTuple):
    """A public name: the path that users write, and what defines it."""

    path: str
    node: ast.stmt


def render(root: Path = ROOT) -> str:
    """The whole page."""
    named = [find(root, module, name, f"surgery.{name}") for name, module in homes(root).items()]
    classes = [item for item in named if isinstance(item.node, ast.ClassDef)]
    sections = {
        "Functions": [item for item in named if isinstance(item.node, Function)],
        "Data": [item for item in classes if not is_exception(item)],
        "What they hold": find_all(root, HELD),
        "Errors": [item for item in classes if is_exception(item)],
        "Profiles, and loops of your own": find_all(root, FURTHER),
        DIT: list(offered_by(root, DIT)),
        TESTING: list(public_of(root, TESTING)),
    }
    parts = [HEAD]
    for title, items in sections.items():
        about = describe(ast.get_docstring(parse(root, title))) if title in (DIT, TESTING) else ""
        parts += [f"## {title}\n", *filter(None, [about]), *map(render_item, items)]
    return "\n".join(parts)


def parse(root: Path, module: str) -> ast.Module:
    """The tree of a module, or of a package's `__init__`."""
    path = root.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def homes(root: Path) -> dict[str, str]:
    """The names that `surgery` has, and the modules that define them."""
    for node in parse(root, "surgery").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return dict(ast.literal_eval(node.value))
    raise LookupError("surgery/__init__.py has no _HOMES")


def find(root: Path, module: str, name: str, path: str) -> Public:
    """The function or class of a module that has this name; LookupError where there is none."""
    for node in parse(root, module).body:
        if isinstance(node, (Function, ast.ClassDef)) and node.name == name:
            return Public(path, node)
    raise LookupError(f"{module} defines no {name}")


def find_all(root: Path, places: Sequence[tuple[str, Sequence[str]]]) -> list[Public]:
    """Names of several modules, by their whole paths."""
    return [find(root, module, name, f"{module}.{name}") for module, names in places for name in names]


def public_of(root: Path, module: str) -> Iterator[Public]:
    """All that a module defines for others, in its order; constants where they say their type."""
    for node in parse(root, module).body:
        name = getattr(node, "name", ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else "_")
        if not name.startswith("_"):
            yield Public(f"{module}.{name}", node)


def offered_by(root: Path, package: str) -> Iterator[Public]:
    """The functions and classes that a package has from its own modules, in its order, by the package's name."""
    for node in parse(root, package).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}."):
            for name in (alias.name for alias in node.names if not alias.name.isupper()):
                yield find(root, node.module, name, f"{package}.{name}")


def is_exception(item: Public) -> bool:
    """As its name says: all errors and warnings of the package end so."""
    return item.path.endswith(("Error", "Warning"))


def render_item(item: Public) -> str:
    """The heading, the signature and the docstring of a public name, and of what a class has."""
    match item.node:
        case ast.ClassDef(name=name) if is_exception(item):
            return "\n".join([head(item.path, f"class {name}"), describe(ast.get_docstring(item.node))])
        case ast.ClassDef() as node:
            init = next((part for part in methods(node) if part.name == "__init__"), None)
            parameters = fields(node) if init is None else arguments(init)
            shown = signature(f"class {node.name}", parameters)
            parts = [head(item.path, shown), describe(ast.get_docstring(node))]
            for part in methods(node):
                if not part.name.startswith("_"):
                    parts += [
                        f"#### `{node.name}.{part.name}`\n",
                        code(signed(part)),
                        describe(ast.get_docstring(part)),
                    ]
            return "\n".join(parts)
        case ast.FunctionDef() as node:
            return "\n".join([head(item.path, signed(node)), describe(ast.get_docstring(node))])
        case ast.AnnAssign(target=target, annotation=annotation):
            return head(item.path, f"{ast.unparse(target)}: {ast.unparse(annotation)}")
    raise LookupError(f"{item.path} is no function, class or constant with a type")


def head(path: str, shown: str) -> str:
    return f"### `{path}`\n\n{code(shown)}"


def code(text: str) -> str:
    return f"```text\n{text}\n```\n"


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [part for part in node.body if isinstance(part, ast.FunctionDef)]


def fields(node: ast.ClassDef) -> list[str]:
    """Those of a dataclass, as parameters; a `field(default=...)` is its default."""
    found = []
    for part in node.body:
        if isinstance(part, ast.AnnAssign):
            value = part.value
            if isinstance(value, ast.Call) and value.keywords:
                value = value.keywords[0].value
            found.append(f"{ast.unparse(part.target)}: {ast.unparse(part.annotation)}")
            found[-1] += "" if value is None else f" = {ast.unparse(value)}"
    return found


def arguments(node: ast.FunctionDef) -> list[str]:
    """The parameters with types and defaults, without `self`."""
    given = node.args
    defaults = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    shown = [
        ast.unparse(argument) + ("" if default is None else f" = {ast.unparse(default)}")
        for argument, default in zip([*given.args, *given.kwonlyargs], defaults, strict=True)
    ]
    star = [f"*{ast.unparse(given.vararg)}"] if given.vararg else ["*"] if given.kwonlyargs else []
    rest = [f"**{ast.unparse(given.kwarg)}"] if given.kwarg else []
    found = [*shown[: len(given.args)], *star, *shown[len(given.args) :], *rest]
    return found[found[:1] == ["self"] :]


def signed(node: ast.FunctionDef) -> str:
    """The signature of a function or a method; a property is a name with a type."""
    returned = "None" if node.returns is None else ast.unparse(node.returns)
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return f"{node.name}: {returned}"
    return f"{signature(node.name, arguments(node))} -> {returned}"


def signature(name: str, parameters: list[str]) -> str:
    line = f"{name}({', '.join(parameters)})"
    return line if len(line) <= WIDTH else "\n".join([f"{name}(", *(f"    {each}," for each in parameters), ")"])


def describe(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists."""
    if docstring is None:
        return ""
    text, found, raised = docstring.partition("\n\nRaises:\n")
    if not found:
        return f"{text}\n"
    joined = re.sub(r"\n {8,}", " ", raised)  # a line of an entry goes on with more indent
    entries = [entry.strip().partition(": ") for entry in joined.splitlines()]
    listed = [f"- `{kinds.replace(', ', '`, `')}`: {when}\n" for kinds, _, when in entries]
    return f"{text}\n\n**Raises**\n\n{''.join(listed)}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
