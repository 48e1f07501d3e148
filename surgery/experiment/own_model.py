"""A model that is measured beside another: its own transformers, drawn with in the place of the base model's.

A compiled checkpoint, one that was trained on since, or any stock model whose transformer takes what the base's takes.
Text encoders, VAE, scheduler and noise are the base's, so that its pictures and predictions pair with the baseline's.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.contents import contents_of, transformers_of
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import ModelSource, build_on_meta, find_source, with_whole_paths
from surgery.errors import InputError, SurgeryError
from surgery.pipelines.pretrained import load_pretrained
from surgery.plan.cost import Cost, compare_costs, plan_cost
from surgery.plan.plan import Plan
from surgery.publish.artefact import Artefact, State, read_compiled, state_text
from surgery.publish.manifest import kind_of_model


@dataclass(frozen=True)
class OwnModel:
    """A model by the name it was given by, with its transformers, and what tells them from others (`contents`).

    `artefact` is its recipe, and `state` whether it is still what that says; None of a model without a recipe.
    """

    target: str
    sources: tuple[ModelSource, ...]
    contents: Mapping[str, Any]
    artefact: Artefact | None = None
    state: State | None = None

    @property
    def name(self) -> str:
        """What its row is called: the last part of its name, and whether it was trained since it was compiled."""
        stem = Path(self.target).resolve().name if self.sources[0].file is None else Path(self.target).stem
        return f"{stem} ({self.state})" if self.state == "retrained" else stem

    @property
    def is_as_compiled(self) -> bool:
        """Whether its spec says what its weights are."""
        return self.state == "as compiled"

    def note(self, name: str) -> str | None:
        """What a reader of its row, which is called `name`, should know; None where there is nothing."""
        if self.artefact is None or self.is_as_compiled:
            return None
        return f"{name}: {state_text(self.state or 'unknown', self.artefact.healed)}"

    def to_json(self) -> dict[str, Any]:
        """Plain data: what was measured, and what it was made from."""
        found: dict[str, Any] = {"path": self.target, "contents": dict(self.contents)}
        artefact = self.artefact
        if artefact is None:
            return found
        made = {"base": artefact.base.to_json(), "spec": artefact.manifest.get("spec"), "plan": artefact.plan.hash}
        healed = {} if artefact.healed is None else {"healed": dict(artefact.healed)}
        return {**found, "state": self.state, "compiled_from": made, **healed}

    def open_in(self, base: Any) -> Any:
        """The pipeline of the base model (live) with these transformers in the place of its own; they are loaded here.

        Raises:
            InputError: they can't be loaded, or are no longer what they were.
        """
        variant = None if self.artefact is None else self.artefact.variant
        if contents_of(self.sources, variant) != self.contents:
            raise InputError(f"{self.target} was changed since this run began; run it again when it stays as it is")
        own = base.transformer
        edited = copy.copy(base)
        for source in self.sources:
            loaded = load_pretrained(
                source, dtype=str(own.dtype), device=own.device, transformer_only=True, variant=variant
            )
            edited.register_modules(**{source.part: loaded})
        return edited

    def with_whole_paths(self) -> "OwnModel":
        """The same for a process that may run in another folder."""
        return replace(self, sources=tuple(map(with_whole_paths, self.sources)))

    def cost(self, base: Anatomy, dtype: Any) -> Cost | None:
        """Its parameters, bytes and blocks beside those of its base, each as it runs (`dtype`).

        None of two transformers, and of one whose blocks can't be made out.
        """
        if len(self.sources) > 1:
            return None
        try:
            own = read_anatomy(build_on_meta(self.sources[0], dtype), dtype=base.dtype)
        except SurgeryError:
            return None
        found = compare_costs(base, own)
        plan = None if self.artefact is None else self.artefact.plan
        if not isinstance(plan, Plan) or self.state == "retrained":
            return found
        work = plan_cost(replace(plan, replacements=()), base)  # on disk what is replaced runs, with other weights
        return replace(found, executions_after=work.executions_after, flops_after=work.flops_after)


def find_own_model(target: str) -> OwnModel:
    """The model of a name (a folder, a single file, a hub id); its weights are read, to know them again.

    Raises:
        InputError: there is no such model, its recipe was changed, or its weights are not sound.
    """
    artefact = read_compiled(target) if kind_of_model(target) == "checkpoint" else None
    first = find_source(target) if artefact is None else artefact.source()
    sources = transformers_of(first)
    variant, state = (None, None) if artefact is None else (artefact.variant, artefact.state())
    return OwnModel(target, sources, contents_of(sources, variant), artefact, state)
