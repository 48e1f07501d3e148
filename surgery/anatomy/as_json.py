"""An anatomy as plain data for JSON, and back."""

from dataclasses import asdict
from typing import Any

from surgery.anatomy.anatomy import Anatomy, BlockKind, Component, Stack, TokenOutput


def anatomy_to_json(anatomy: Anatomy) -> dict[str, Any]:
    """Plain data of an anatomy; `anatomy_from_json` reads it back."""
    document = asdict(anatomy)
    document["example"] = dict(anatomy.example)
    return document


def anatomy_from_json(data: dict[str, Any]) -> Anatomy:
    """The anatomy that `anatomy_to_json` wrote, before or after a trip through JSON.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not such data.
    """
    stacks = tuple(_stack(stack) for stack in data["stacks"])
    return Anatomy(**{**data, "stacks": stacks, "example": tuple(data["example"].items())})


def _stack(data: dict[str, Any]) -> Stack:
    kinds = tuple(_kind(kind) for kind in data["kinds"])
    streams = None if data["streams"] is None else tuple(data["streams"])
    stack = Stack(
        **{
            **data,
            "kinds": kinds,
            "kind_of": tuple(data["kind_of"]),
            "streams": streams,
            "own_context": tuple(data["own_context"]),
            "read_blocks": tuple(data.get("read_blocks", ())),  # of the bundled anatomy, which is older, none
            "between": tuple(data.get("between", ())),
        }
    )
    if any(not 0 <= number < len(kinds) for number in stack.kind_of):
        raise ValueError(f"{stack.name} has a block of a kind that is not there")
    return stack


def _kind(data: dict[str, Any]) -> BlockKind:
    components = tuple(_component(component) for component in data["components"])
    return BlockKind(**{**data, "components": components, "missing_streams": tuple(data["missing_streams"])})


def _component(data: dict[str, Any]) -> Component:
    return Component(**{**data, "outputs": tuple(TokenOutput(**output) for output in data["outputs"])})
