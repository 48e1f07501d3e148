"""What a pruned model says of itself: metadata within its files, a manifest and a model card beside them."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.anatomy.classes import OWN_CLASSES, home_of_class
from surgery.anatomy.identity import Identity
from surgery.anatomy.sources import HUB_PREFIX, ModelSource, is_hub_id
from surgery.anatomy.tensor_files import Weights, num_rows
from surgery.bundled import DEMO_NAME, demo_folder
from surgery.checkpoint.byte_plan import BytePlan
from surgery.checkpoint.header_metadata import KeptMetadata
from surgery.checkpoint.new_checkpoint import NewCheckpoint, Segment, describe_misfits
from surgery.checkpoint.unrolled import stock_plan
from surgery.files import expand_home, is_there
from surgery.plan.paired import ModelPlan, PairedPlan
from surgery.plan.plan import Plan
from surgery.plan.planned import PlannedSource
from surgery.publish.manifest import BASE_2, FORMAT, make_manifest
from surgery.publish.model_card import CardFacts, Size, TransformerFacts, amount_text, read_card_head
from surgery.publish.pipeline_files import PipelineFile, base_folder, count_values
from surgery.spec.selector import FIRST, SECOND

KEY, BASE_KEY = "surgery", "surgery_of_base"  # in the metadata of safetensors files
SHOWN = 3
FACTOR = re.compile(r"(scale_weight|weight_scale(_2|_inv)?|scale_input|input_scale|scaled_fp8|absmax|SCB)$")


@dataclass(frozen=True)
class PreparedModel:
    """All that is known before the first byte is written: of a transformer, and with it of a `second` one."""

    planned: PlannedSource
    source: ModelSource
    weights: Weights
    new: NewCheckpoint
    bytes: BytePlan
    pipeline_files: tuple[PipelineFile, ...]
    identity: Identity
    metadata: KeptMetadata
    agreement: Mapping[str, Any] | None
    versions: Mapping[str, str]
    variant: str | None = None
    arguments: tuple[str, ...] = ()  # of the command
    second: "PreparedModel | None" = None

    @property
    def by_part(self) -> Mapping[str, "PreparedModel"]:
        """What is written, by the names that the transformers have in their pipeline."""
        return {FIRST: self} if self.second is None else {FIRST: self, SECOND: self.second}

    @property
    def is_pipeline(self) -> bool:
        """Whether the result is a pipeline's folder, not a transformer's."""
        return self.source.pipeline is not None

    @property
    def plan(self) -> Plan:
        """What a stock class runs: a plan without windows."""
        return stock_plan(self.planned.plan)

    @property
    def whole_plan(self) -> ModelPlan:
        """The plan of all that is written."""
        return self.plan if self.second is None else PairedPlan(self.plan, self.second.plan)

    @property
    def spec_text(self) -> str:
        """The spec as it is published: paths of this machine by their last parts."""
        return public_text(self.planned)

    @property
    def repeated_bytes(self) -> int:
        """The bytes of all copies of a block but its first: the graph backend would share them."""
        every = [segment for tensor in self.new.tensors for segment in tensor.segments]
        once = {(segment.tensor, segment.start, segment.stop): segment for segment in every}
        return sum(map(self._size_of, every)) - sum(map(self._size_of, once.values()))

    @property
    def dropped_bytes(self) -> int:
        """The bytes of the original of which nothing is kept, neither as they are nor changed."""
        used = {(s.tensor, s.start, s.stop): s for tensor in self.new.tensors for s in tensor.segments}
        return self.weights.size_bytes - sum(map(self._size_of, used.values()))

    def _size_of(self, segment: Segment) -> int:
        """The bytes of the rows that a segment copies."""
        stored = self.weights.tensors[segment.tensor][1]
        return stored.size_bytes * segment.num_rows // max(num_rows(stored.shape), 1)


def make_metadata(prepared: PreparedModel, plan: ModelPlan) -> dict[str, str]:
    """The metadata of a transformer's safetensors files: what holds of the original's, and the recipe as JSON.

    `plan` is that of the whole model.
    """
    carried = dict(prepared.metadata.kept)
    if KEY in carried:
        carried[BASE_KEY] = carried.pop(KEY)  # the original was pruned itself
    recipe = {
        "format": FORMAT,
        "spec": prepared.spec_text,
        **({"transformer": prepared.source.part} if isinstance(plan, PairedPlan) else {}),
        "plan": plan.text,
        "plan_hash": plan.hash,
        "base": prepared.identity.to_json(),
        "versions": dict(prepared.versions),
    }
    return {"format": "pt", **carried, KEY: json.dumps(recipe, ensure_ascii=False)}


Checks = Mapping[str, Mapping[str, Any]]  # what each check found, for each transformer by its name


def manifest_of(prepared: PreparedModel, sizes: Mapping[str, int], checks: Checks) -> dict[str, Any]:
    """What the folder is, what it was made from, what is in it (`sizes`, in bytes), and how it was verified.

    What it says of a second transformer stands below that one's name.
    """
    facts, second = _facts_of_part(prepared), prepared.second
    manifest = make_manifest(
        "checkpoint",
        title=prepared.planned.spec.title,
        base=prepared.identity,
        spec_text=prepared.spec_text,
        plan=prepared.whole_plan,
        facts={**facts, "files": dict(sizes), "checks": dict(checks[FIRST])},
        versions=prepared.versions,
    )
    if second is None:
        return manifest
    of_second = {**_facts_of_part(second), "checks": dict(checks[SECOND])}
    return {**manifest, BASE_2: second.identity.to_json(), SECOND: of_second}


def _facts_of_part(prepared: PreparedModel) -> dict[str, Any]:
    return {
        "config_changes": config_changes(prepared),
        "weights": {
            "parameters": [prepared.weights.num_values, prepared.bytes.num_values],
            "bytes": [prepared.weights.size_bytes, prepared.bytes.size_bytes],
            "changed_bytes": prepared.bytes.computed_bytes,
            "repeated_bytes": prepared.repeated_bytes,
            "dropped_tensors": len(prepared.new.dropped),
        },
    }


def config_changes(prepared: PreparedModel) -> dict[str, Any]:
    """The fields of the config that are others now, with their values."""
    before = prepared.source.config
    return {name: value for name, value in prepared.new.config.items() if before.get(name) != value}


def public_name(name: str, folder: Path = Path()) -> str:
    """What a model or a file is called where strangers read it: a hub id as it is, of a path its last part alone.

    A path is one from `folder`.
    """
    if name == DEMO_NAME or name.startswith(HUB_PREFIX):
        return name.removeprefix(HUB_PREFIX)
    path = folder / expand_home(name)
    is_path = name.startswith((".", "/", "~")) or is_there(path) or ("/" in name and not is_hub_id(name))
    return path.absolute().name if is_path else name


def public_text(planned: PlannedSource) -> str:
    """The text of a spec as strangers may read it: paths of this machine by their last parts."""
    spec = planned.spec
    paths = (spec.model, spec.profile, *(group.file for group in spec.profile_groups))
    return hide_paths(planned.text, [name for name in paths if name is not None], spec.folder)


def hide_paths(text: str, names: Iterable[str], folder: Path = Path()) -> str:
    """A text in which each of the names is the public one, wherever it stands as a whole."""
    for name in names:
        text = re.sub(rf"(?<![\w./~-]){re.escape(name)}(?![\w/-])", lambda found: public_name(found[0], folder), text)
    return text


def card_facts(prepared: PreparedModel, name: str, checks: Checks) -> CardFacts:
    """What the model card of a pruned model is written from; `name` is that of its folder."""
    rest_bytes = sum(file.size_bytes for file in prepared.pipeline_files) if prepared.is_pipeline else None
    rest = None if rest_bytes is None else Size(count_values(prepared.pipeline_files), rest_bytes)
    return CardFacts(
        name=name,
        title=prepared.planned.spec.title,
        spec_text=prepared.spec_text,
        plan_hash=prepared.whole_plan.hash,
        parts={part: _transformer_facts(each, checks[part]) for part, each in prepared.by_part.items()},
        base_card=read_card_head(base_card(prepared.source)),
        rest=rest,
        loading=loading_code(prepared, name),
        command=reproducing_command(prepared, name),
        versions=prepared.versions,
    )


def _transformer_facts(prepared: PreparedModel, checks: Mapping[str, Any]) -> TransformerFacts:
    weights, written = prepared.weights, prepared.bytes
    return TransformerFacts(
        plan=prepared.plan,
        base=prepared.identity,
        before=Size(weights.num_values, weights.size_bytes),
        after=Size(written.num_values, written.size_bytes),
        checks=tuple(describe_check(kind, found) for kind, found in checks.items()),
        notes=tuple(_notes(prepared)),
    )


def _notes(prepared: PreparedModel) -> Iterator[str]:
    for field, value in config_changes(prepared).items():
        yield f"the config says `{field}: {json.dumps(value)}`"
    if prepared.bytes.computed_bytes:
        yield f"values changed: {amount_text(prepared.bytes.computed_bytes, 'B')}; all others are copied bit for bit"
    if prepared.repeated_bytes:
        yield f"layers that run more than once are written out: {amount_text(prepared.repeated_bytes, 'B')} of copies"
    yield from notes_on_files(prepared)


def notes_on_files(prepared: PreparedModel) -> Iterator[str]:
    """What of the original's files is not as one would take it."""
    if prepared.metadata.stale:
        yield f"{', '.join(prepared.metadata.stale)} in the header was of the original's contents, and is left out"
    yield from notes_on_tensors(prepared)


def notes_on_tensors(prepared: PreparedModel) -> Iterator[str]:
    """Which tensors need a word: those of blocks that do not come whole, and those that the class does not have."""
    for misfit in prepared.new.misfits:
        lost = f"{len(misfit.tensors)} tensors did not come along: " if misfit.tensors else ""
        yield f"{lost}{describe_misfits([misfit])}"
    yield from _notes_on_unknown(prepared)


def _notes_on_unknown(prepared: PreparedModel) -> Iterator[str]:
    """What is in the files beside the tensors that the class has: nobody but another program reads it."""
    unknown = prepared.new.unknown
    if not unknown:
        return
    shown = ", ".join(unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
    name = prepared.source.class_name
    yield f"{len(unknown)} tensors that {name} does not have went along with their blocks: {shown}"
    factors = [name for name in unknown if FACTOR.search(name)]
    if factors:
        yield (
            f"the weights are stored scaled ({factors[0]}): diffusers ignores the factors, and computes with other "
            "weights, of the original as of this; convert the original to bfloat16 first"
        )


def base_card(source: ModelSource) -> Path:
    """Where the original's own model card would lie."""
    if source.name == DEMO_NAME:
        return demo_folder().parent / "MODEL_CARD.md"
    folder = base_folder(source)
    return Path("README.md") if folder is None else folder / "README.md"


def reproducing_command(prepared: PreparedModel, name: str) -> str:
    """The command that writes the same files, as one would type it beside the spec."""
    planned = prepared.planned
    spec, model = planned.spec, public_name(planned.source.name)
    command = ["surgery", "compile", "spec.yaml", "--to", "checkpoint", "--out", name, *prepared.arguments]
    if spec.model is None or public_name(spec.model) != model:
        command += ["--model", model]
    if planned.means is not None and (spec.profile is None or Path(spec.profile).name != planned.means.path.name):
        command += ["--profile", planned.means.path.name]
    return shlex.join(command)


def loading_code(prepared: PreparedModel, folder: str) -> str:
    """The Python that loads what is in `folder`, in the dtype of the files."""
    imports, options = [], []
    name, target, method = prepared.source.class_name, "transformer", "from_pretrained"
    place = folder
    if prepared.is_pipeline:
        own = prepared.source.pipeline_class
        name, target = own if own in OWN_CLASSES else "DiffusionPipeline", "pipe"
    elif prepared.source.file is not None:
        method, place = "from_single_file", f"{folder}/{prepared.bytes.shards[0].name}"
        options.append(f"config={json.dumps(f'{folder}/config')}")
    if prepared.variant is not None and prepared.source.file is None:
        options.append(f"variant={json.dumps(prepared.variant)}")
    if prepared.source.weights_dtype in ("bfloat16", "float16"):
        imports.append("import torch\n")
        options.append(f"dtype=torch.{prepared.source.weights_dtype}")
    arguments = ", ".join([json.dumps(place, ensure_ascii=False), *options])
    return f"{''.join(imports)}from {home_of_class(name)} import {name}\n\n{target} = {name}.{method}({arguments})"


def describe_check(kind: str, found: Mapping[str, Any]) -> str:
    """A sentence on one check."""
    if kind == "structure":
        return (
            f"checked: all {found['num_tensors']} tensors have the names and shapes of the stock class with this config"
        )
    if not found["difference"]:
        return f"checked: its output is that of the rewritten graph to the bit, on {found['model']}"
    return f"checked: its output is that of the rewritten graph but for {found['difference']:.1g}, on {found['model']}"
