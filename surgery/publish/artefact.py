"""A folder that `surgery compile` wrote, read back: what it was made from, by which plan, and whether it is still that.

`surgery.json` and what lies beside it are its recipe. A graph's folder holds no weights: it runs on its base model. A
checkpoint's holds its own, which anybody may train on: then the plan still says which layers it was made of, but the
weights are no longer what the spec makes of the base's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surgery.anatomy.contents import hash_tensors
from surgery.anatomy.identity import Identity, find_difference, identity_from_json
from surgery.anatomy.known import VOLATILE_KEYS
from surgery.anatomy.sources import ModelSource, find_source, read_json, second_source
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import expand_home, hash_file, is_file, is_there
from surgery.plan.paired import ModelPlan, model_plan_from_json
from surgery.publish.manifest import (
    BASE_2,
    CALL,
    CONFIG,
    FORMAT,
    HEALED,
    MANIFEST,
    MEANS,
    PLAN,
    SPEC,
    WEIGHTS,
    WEIGHTS_SUM,
    Kind,
    kind_of_folder,
    read_manifest,
)
from surgery.spec.selector import FIRST, SECOND

IN_PYTHON, AS_OPTION = (f"give {name} where the model lies now" for name in ("base=", "--model"))
MAX_FACTS, MAX_LETTERS = 12, 60  # of what is said of healing in one line
ASKED_FOR = (  # of what healed a model
    *("teacher model", "data prompts", "data pictures", "trained", "steps"),
    *("validation prompts", "validation before", "validation after"),
)
State = Literal["as compiled", "healed", "retrained", "unknown"]


@dataclass(frozen=True)
class Artefact:
    """A folder that was compiled, with its recipe as it was written. `means` is a graph's file of means, None without.

    `second` is the base's second transformer where that is edited, too.
    """

    folder: Path
    base: Identity
    plan: ModelPlan
    means: Path | None
    manifest: Mapping[str, Any]
    second: Identity | None = None

    @property
    def kind(self) -> Kind:
        """What it was compiled to."""
        return "graph" if self.manifest.get("kind", "graph") == "graph" else "checkpoint"

    @property
    def call(self) -> Mapping[str, Any]:
        """The arguments that the pipeline of the base model is called with where nothing else is said."""
        return call_of_manifest(self.manifest)

    @property
    def healed(self) -> Mapping[str, Any] | None:
        """How it was healed, as who did it wrote it down; None where it was not."""
        found = self.manifest.get(HEALED)
        return found if isinstance(found, Mapping) else None

    @property
    def variant(self) -> str | None:
        """What diffusers calls the variant of its files (`fp16`)."""
        found = self.manifest.get("variant")
        return found if isinstance(found, str) else None

    @property
    def base_text(self) -> str:
        """What the base model is called, with its commit where it is one of the hub."""
        revision = self.base.revision
        return self.base.model if revision is None else f"{self.base.model} at revision {revision[:12]}"

    def source(self) -> ModelSource:
        """Its own transformer, the first of two; raises InputError where there is none, as in a graph's folder."""
        if self.kind == "graph":
            raise InputError(f"{self.folder} is a graph, which has no weights of its own: it runs on {self.base_text}")
        files = self.manifest.get("files", {})
        single = [name for name in files if name.endswith(".safetensors") and name == Path(name).name]
        inside = (self.folder / "config.json", self.folder / "model_index.json")
        if len(single) == 1 and not any(path.exists() for path in inside):
            return find_source(str(self.folder / single[0]))
        return find_source(str(self.folder))

    def state(self) -> State:
        """Whether its weights and config are still what was written; that reads all of its weights.

        `healed` are those that were written when it was healed; `unknown` is one whose recipe keeps no hash.
        """
        if self.kind == "graph":
            return "as compiled"
        first = self.source()
        sources = {FIRST: first}
        if self.second is not None:
            second = second_source(first)
            if second is None:
                return "retrained"
            sources[SECOND] = second
        kept = {part: _kept_of_part(self.manifest, part) for part in sources}
        if any(facts is None for facts in kept.values()):
            return "unknown"
        if not all(_is_as_kept(facts, sources[part], self.variant) for part, facts in kept.items() if facts):
            return "retrained"
        healed = self.healed
        return "as compiled" if healed is None or healed.get("is_apart") else "healed"  # adapters lie beside


def call_of_manifest(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a pipeline's call that a manifest keeps."""
    found = manifest.get(CALL, {})
    return found if isinstance(found, Mapping) else {}


STATES: Mapping[State, str] = {
    "as compiled": "its weights are those that its spec was compiled to",
    "healed": "its weights were trained after its spec was compiled (healed)",
    "retrained": "its weights or its config were changed after it was compiled (retrained): the spec no longer says "
    "what they are",
    "unknown": "its recipe keeps no hash of its weights, so that nobody knows whether they are those of its spec; "
    "compile it again",
}


def state_text(state: State, healed: Mapping[str, Any] | None) -> str:
    """What a state means, and how the model was healed, if it was."""
    return STATES[state] if healed is None else f"{STATES[state]}; healed: {healed_text(healed)}"


def healed_text(healed: Mapping[str, Any]) -> str:
    """How a model was healed, in one line: the facts that people ask for, or the first where its recipe has none."""
    found = dict(_iter_facts(healed))
    names = [name for name in ASKED_FOR if name in found] or list(found)[:MAX_FACTS]
    return ", ".join(f"{name} {found[name]}" for name in names)


def _iter_facts(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _iter_facts(value, f"{above}{name} ")
        elif isinstance(value, float):
            yield f"{above}{name}", f"{value:.4g}"
        elif isinstance(value, str | int):
            yield f"{above}{name}", " ".join(str(value).split())[:MAX_LETTERS]


def facts_of_transformer(source: ModelSource, variant: str | None = None) -> dict[str, Any]:
    """What a manifest keeps of a transformer that was written, by which it is known again; it reads all weights."""
    return {CONFIG: dict(source.config), WEIGHTS_SUM: hash_tensors(source, variant=variant)}


def _kept_of_part(manifest: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    """What a manifest keeps of one transformer; None where it is from before anything was kept."""
    facts = manifest if part == FIRST else manifest.get(part)
    weights = facts.get(WEIGHTS) if isinstance(facts, Mapping) else None
    if not isinstance(facts, Mapping) or not isinstance(weights, Mapping):
        return None
    config, digest = facts.get(CONFIG), weights.get(WEIGHTS_SUM)
    return {CONFIG: config, WEIGHTS_SUM: digest} if isinstance(config, Mapping) and isinstance(digest, str) else None


def _is_as_kept(facts: Mapping[str, Any], source: ModelSource, variant: str | None) -> bool:
    """Whether a transformer is what was written. Saved again by diffusers, its config has fields more: defaults."""
    kept, found = ({k: v for k, v in one.items() if k not in VOLATILE_KEYS} for one in (facts[CONFIG], source.config))
    if kept != found:
        more = {name: value for name, value in found.items() if name not in kept}
        if {**kept, **more} != found or not _are_defaults(source.class_name, more):
            return False
    return bool(facts[WEIGHTS_SUM] == hash_tensors(source, variant=variant))


def _are_defaults(class_name: str, fields: Mapping[str, Any]) -> bool:
    """Whether a class of diffusers is the same without these fields of its config."""
    import inspect
    import json

    import diffusers

    parameters = inspect.signature(getattr(diffusers, class_name, object).__init__).parameters
    defaults = {name: parameters[name].default for name in fields if name in parameters}
    return json.dumps(defaults, sort_keys=True, default=str) == json.dumps(dict(fields), sort_keys=True)


def is_artefact(folder: Path) -> bool:
    """Whether a folder has the manifest of a graph; that of a pruned checkpoint is a model like any other."""
    return kind_of_folder(folder) == "graph"


def read_artefact(folder: str | Path) -> Artefact:
    """Read the folder of a graph, and check that nothing in it was changed.

    Raises:
        InputError: it is no such folder, is of a newer format, or a file is missing or changed.
    """
    folder = Path(folder)
    if not is_artefact(folder):
        if kind_of_folder(folder) is not None:
            raise InputError(f"{folder} is a pruned model of its own; load it with from_pretrained")
        raise InputError(f"{folder} has no {MANIFEST}; give a folder that `surgery compile --to graph` wrote")
    return read_compiled(folder)


def read_compiled(folder: str | Path) -> Artefact:
    """Read the recipe of a compiled folder, and check that its texts were not changed: weights are not read here.

    Raises:
        InputError: it has no recipe, one of a newer format, or a file of the recipe is missing or changed.
    """
    folder = expand_home(folder)
    if kind_of_folder(folder) is None:
        raise InputError(f"{folder} has no {MANIFEST}; give a folder that `surgery compile` wrote")
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        shown = manifest.get("format", "none")
        raise InputError(f"{folder} has format {shown}; this version reads {FORMAT}; install a newer layer-surgery")
    with told_as(f"{folder / MANIFEST} is damaged, so that the spec must be compiled again"):
        base, files = identity_from_json(manifest["base"]), dict(manifest["files"])
        recorded, spec_sum = str(manifest["plan"]), str(manifest.get("spec"))
        second = identity_from_json(manifest[BASE_2]) if BASE_2 in manifest else None
    is_graph = kind_of_folder(folder) == "graph"
    sums = files if is_graph else {SPEC: spec_sum}
    for name, digest in sums.items():
        path = folder / name
        if Path(name).name != name or not is_file(path):
            raise InputError(f"{folder} has no {name}, which its manifest lists; compile the spec again")
        if hash_file(path) != digest:
            raise InputError(f"{path} was changed after it was compiled; compile the spec again")
    with told_as(f"{folder / PLAN} is damaged, so that the spec must be compiled again"):
        plan = model_plan_from_json(read_json(folder / PLAN))
    if plan.hash != recorded:
        raise InputError(f"{folder / PLAN} is not the plan of the manifest; compile the spec again")
    return Artefact(folder, base, plan, folder / MEANS if is_graph and MEANS in files else None, manifest, second)


def find_base(artefact: Artefact, base: str | Path | None = None, *, advice: str = IN_PYTHON) -> ModelSource:
    """The base model of an artefact, found and compared with what was recorded.

    `advice` is what to do where it is not there and no other place of it is given.

    Raises:
        InputError: it is not there, or another model is.
    """
    try:
        if base is None:
            source = find_recorded(artefact.folder, artefact.base)
        else:
            source = find_source(str(base), revision=artefact.base.revision)
    except InputError as error:
        told = "" if base is not None else f"; {advice}"
        raise InputError(f"the base model of {artefact.folder} can't be found: {error}{told}") from None
    name = str(base or source.name)
    difference = find_difference(artefact.base, source) or _difference_of_second(artefact, source)
    if difference is not None:
        raise InputError(
            f"{name} is not the base model that {artefact.folder} was compiled for: {difference}; it was made from "
            f"{artefact.base_text}: give that model, or compile {artefact.folder / SPEC} for this one"
        )
    return source


def find_recorded(folder: Path, base: Identity) -> ModelSource:
    """The model that the recipe of a folder names: from where one works, or else beside that folder.

    A recipe names a folder by the last part of its path; whether it is the same model is not asked here.

    Raises:
        InputError: it is in neither place.
    """
    try:
        return find_source(base.model, revision=base.revision)
    except InputError:
        beside = folder.absolute().parent / base.model
        if Path(base.model).name != base.model or beside == folder.absolute() or not is_there(beside):
            raise
        return find_source(str(beside), revision=base.revision)


def _difference_of_second(artefact: Artefact, source: ModelSource) -> str | None:
    """Why a model's second transformer is not the recorded one; None where it is, or none was edited."""
    if artefact.second is None:
        return None
    found = second_source(source)
    if found is None:
        return "it has one transformer, not two"
    difference = find_difference(artefact.second, found)
    return None if difference is None else f"its {SECOND} is another one: {difference}"
