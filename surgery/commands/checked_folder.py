"""What `check` tells of a compiled folder: its plan, what that saves, and whether its weights are what was compiled."""

from typing import Any

from surgery.commands.compiled_folder import describe_recipe, recipe_to_json
from surgery.commands.planned_text import Show, Shown, describe_planned
from surgery.errors import InputError
from surgery.publish.artefact import AS_OPTION, Artefact, find_base
from surgery.publish.planned_folder import plan_of_artefact


def check_folder(artefact: Artefact, shown: Shown, *, model: str | None) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of a compiled folder: its plan, and whether its weights are what was compiled.

    Without its base, which `model` names, the plan is told alone.
    """
    try:
        base = find_base(artefact, model, advice=AS_OPTION)
    except InputError as error:
        if model is not None or shown.svg is not None or shown.show not in (None, Show.plan):
            raise
        document = {"spec": str(artefact.folder), "model": artefact.base.model, "plan": artefact.plan.to_json()}
        head = f"{artefact.folder}: plan {artefact.plan.hash[:12]}"
        text = f"{head}\n{artefact.plan.text}what it saves is not told: {error}"
    else:
        document, text = describe_planned(plan_of_artefact(artefact, base), shown)
    state = artefact.state()
    document["recipe"] = recipe_to_json(artefact, state)
    told = describe_recipe(artefact, state)
    if shown.show is None:
        return document, f"{text}; weights {state}"
    if shown.show is Show.code:
        return document, "\n".join([*(f"# {line}" for line in told), text])
    return document, "\n".join([text, *told])
