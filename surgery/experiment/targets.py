"""What a command is asked to draw or measure -> specs and models of their own, and the base model of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surgery.anatomy.sources import ModelSource, find_source
from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.own_model import OwnModel, find_own_model
from surgery.experiment.rows import OwnModelRow, Row, Target, baseline_row
from surgery.experiment.run import RunRequest, having_pipeline, open_run
from surgery.files import is_file
from surgery.plan.spec_model import model_of_spec
from surgery.publish.artefact import AS_OPTION, Artefact, find_base, read_compiled
from surgery.publish.manifest import MANIFEST, SPEC, kind_of_model
from surgery.spec.load import Spec, load_spec
from surgery.spec.spec_name import STANDARD_INPUT, SUFFIXES, parse_spec_name

WITH_PIPELINE = "compile it again without --transformer-only, with the rest of its pipeline"


@dataclass(frozen=True)
class Targets:
    """What is drawn or measured, in the order in which it was given, and the recipes of those that were compiled."""

    items: tuple[Target, ...]
    artefacts: tuple[Artefact, ...]

    @property
    def specs(self) -> list[Spec]:
        """The specs among them, those of graphs too."""
        return [item for item in self.items if isinstance(item, Spec)]

    @property
    def own_models(self) -> list[OwnModel]:
        """The models of their own."""
        return [item for item in self.items if isinstance(item, OwnModel)]

    def find_base(self, override: str | None) -> ModelSource:
        """The base model: what the call says, what the specs name, or what the folders were compiled from.

        Raises:
            InputError: it is not one model, it is not there, or a folder was compiled from another.
        """
        compiled = {str(artefact.folder) for artefact in self.artefacts}
        named = {model_of_spec(spec, override) for spec in self.specs if spec.file not in compiled}
        names = named or ({override} if override else {artefact.base.model for artefact in self.artefacts})
        if not names:
            raise InputError(
                f"{self.own_models[0].target} has no {MANIFEST}, so that the model to compare it with is not known; "
                "give --model"
            )
        if len(names) > 1:
            raise InputError(_several_text(named, self.artefacts))
        given = names.pop() if named or override else None
        bases = [find_base(artefact, given, advice=AS_OPTION) for artefact in self.artefacts]
        if len({base.revision for base in bases}) > 1:
            shown = ", ".join(sorted(str(base.revision) for base in bases))
            raise InputError(f"the folders are for {bases[0].name} at the revisions {shown}; take them one by one")
        if bases:
            return bases[0]
        assert given is not None, "without recipes a model is named"
        return find_source(given)


def _several_text(named: set[str], artefacts: Sequence[Artefact]) -> str:
    if named:
        return f"the specs name not one model but {', '.join(sorted(named))}; give --model"
    made = ", ".join(f"{artefact.folder} from {artefact.base_text}" for artefact in artefacts)
    return f"the folders were compiled from several models ({made}); take them one by one"


def read_targets(given: Sequence[str]) -> Targets:
    """Read specs, the recipes of compiled folders, and the weights of models of their own, to know them again.

    Raises:
        InputError: there is no such file, folder or model, or a recipe was changed.
        SpecError: a spec has faults.
    """
    items: list[Target] = []
    artefacts: list[Artefact] = []
    for name in given:
        if is_spec_name(name):
            items.append(load_spec(name))
        elif kind_of_model(name) == "graph":
            artefacts.append(read_compiled(name))
            items.append(spec_of_artefact(artefacts[-1]))
        else:
            own = find_own_model(name)
            artefacts += [] if own.artefact is None else [own.artefact]
            items.append(own)
    return Targets(tuple(items), tuple(artefacts))


def is_spec_name(target: str) -> bool:
    """Whether a target is a spec: by its name, on standard input, or as a file that is no file of weights."""
    name = parse_spec_name(target)
    path = Path(name.path)
    if name.path == STANDARD_INPUT or path.suffix in SUFFIXES:
        return True
    return is_file(path) and path.suffix != ".safetensors"


def spec_of_artefact(artefact: Artefact) -> Spec:
    """The spec of a compiled graph, for its base model, with its means."""
    spec = load_spec(artefact.folder / SPEC)
    profile = None if artefact.means is None else artefact.means.name
    return replace(spec, file=str(artefact.folder), model=artefact.base.model, profile=profile)


@dataclass(frozen=True)
class Alone:
    """One model by itself; `within` is the base in whose pipeline it runs, where it is a transformer without one."""

    target: str
    source: ModelSource
    within: ModelSource | None = None

    def open(self, request: RunRequest, prompts: Sequence[str]) -> Bench:
        """A bench with the one row that it is; raises InputError where its pipeline can't be loaded."""
        run = open_run(self.within or self.source, request, prompts)
        row: Row = baseline_row(run.pipe, request.seed)
        if self.within is not None:
            row = OwnModelRow(row.name, row.kind, row.seed, find_own_model(self.target), run.pipe)
        return Bench(run, (row,), tuple(prompts))


def find_alone(target: str, purpose: str) -> Alone:
    """One model by itself, which has a pipeline, or one in its base.

    Raises:
        InputError: it is a graph, a transformer without a recipe, or not there.
    """
    kind = kind_of_model(target)
    if kind is None:
        return Alone(target, having_pipeline(find_source(target), purpose))
    artefact = read_compiled(target)
    if kind == "graph":
        raise InputError(
            f"{target} is a graph, with the layers of {artefact.base_text} in another order; {purpose}, give that, "
            f"or compile {artefact.folder / SPEC} --to checkpoint"
        )
    source = artefact.source()
    if source.pipeline is not None:
        return Alone(target, source)
    return Alone(target, source, having_pipeline(find_base(artefact, advice=WITH_PIPELINE), purpose))
