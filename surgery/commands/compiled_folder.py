"""What commands say of a folder that was compiled: what it was made from, and whether it still is what was written."""

from pathlib import Path
from typing import Any

from surgery.publish.artefact import Artefact, State, read_compiled, state_text
from surgery.publish.manifest import kind_of_model


def recipe_to_json(artefact: Artefact, state: State) -> dict[str, Any]:
    """What a document says of the recipe of a compiled folder."""
    return {
        "folder": str(artefact.folder),
        "kind": artefact.kind,
        "base": artefact.base.to_json(),
        "plan": artefact.plan.hash,
        "state": state,
        **({} if artefact.healed is None else {"healed": dict(artefact.healed)}),
        **({"call": dict(artefact.call)} if artefact.call else {}),
    }


def describe_recipe(artefact: Artefact, state: State) -> list[str]:
    """The same, to be read."""
    made = f"{artefact.folder}: a {artefact.kind}, compiled from {artefact.base_text} by plan {artefact.plan.hash[:12]}"
    if artefact.kind == "graph":
        return [made, "it has no weights of its own: it runs on those of its base"]
    return [made, state_text(state, artefact.healed)]


def artefact_at(path: str | Path) -> Artefact | None:
    """The recipe of a compiled folder; None of anything else."""
    return None if kind_of_model(str(path)) is None else read_compiled(path)
