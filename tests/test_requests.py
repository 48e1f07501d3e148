"""What can be asked for is asked for by somebody and looked at by somebody: no field of a request is for show."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "surgery"
ENDINGS = ("Request", "Options", "Settings")


def fields_of(trees: list[ast.Module]) -> dict[str, list[str]]:
    """The fields of every request, in their order; those of a request that others extend are theirs."""
    classes = {
        node.name: node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(ENDINGS)
    }
    bases = {name: [base.id for base in node.bases if isinstance(base, ast.Name)] for name, node in classes.items()}

    def own(name: str) -> list[str]:
        inherited = [field for base in bases[name] if base in classes for field in own(base)]
        return [*inherited, *(part.target.id for part in classes[name].body if isinstance(part, ast.AnnAssign))]

    extended = {base for found in bases.values() for base in found}
    return {name: list(dict.fromkeys(own(name))) for name in classes if name not in extended}


def for_show(trees: list[ast.Module]) -> list[str]:
    """The fields that no call in these modules gives, and those that no expression in them reads."""
    fields = fields_of(trees)
    given, read = defaultdict(set), set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            read.add(node.attr)
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given[name] |= {*fields.get(name, [])[: len(node.args)], *(keyword.arg for keyword in node.keywords)}
    return [
        f"{name}.{field} is {what}"
        for name, known in fields.items()
        for field in known
        for what, found in (("given by nobody", given[name] | given["replace"]), ("read by nobody", read))
        if field not in found
    ]


def test_every_field_of_a_request_is_given_and_read():
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    assert len(fields_of(trees)) >= 6
    assert for_show(trees) == []


@pytest.mark.parametrize(
    ("call", "use", "found"),
    [
        ("Request(1, late=2)", "r.early + r.late", []),
        ("replace(Request(1), late=2)", "r.early + r.late", []),
        ("Request(1)", "r.early + r.late", ["Request.late is given by nobody"]),
        ("Request(1, 2)", "r.early", ["Request.late is read by nobody"]),
        ("Request(1, 2)\nr.late = 3", "r.early", ["Request.late is read by nobody"]),
    ],
)
def test_a_field_for_show_is_found(call, use, found):
    fields = "class Request:\n    early: int\n    late: int = 0\n"
    assert for_show([ast.parse(fields), ast.parse(f"{call}\n{use}\n")]) == found
