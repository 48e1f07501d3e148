"""A planned spec -> a folder that stock diffusers loads: checkpoint, config, the rest of its pipeline, recipe and card.

Everything is written beside the target and renamed when it is whole and verified. This process copies bytes; what needs
torch is asked of another one (publish.worker).
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from surgery.anatomy.hub_files import fetch_source
from surgery.anatomy.identity import identity_from_json
from surgery.anatomy.sources import ModelSource, find_source, source_to_json, weights_of_source
from surgery.checkpoint.byte_plan import DEFAULT_SHARD_SIZE, parse_size, plan_bytes
from surgery.checkpoint.header_metadata import join_metadata, keep_metadata
from surgery.checkpoint.new_checkpoint import new_checkpoint_from_json
from surgery.checkpoint.unrolled import stock_plan
from surgery.checkpoint.write import refuse_full_disk, write_weights
from surgery.errors import InputError, RefusedError
from surgery.outputs import refuse_folder, refuse_foreign, whole_folder
from surgery.plan.planned import PlannedSource
from surgery.plan.planned_pair import AnyPlannedSource, parts_of, plan_model_file
from surgery.plan.windowed import uses_means
from surgery.publish.artefact import facts_of_transformer
from surgery.publish.card_section import put_section
from surgery.publish.manifest import CARD, write_manifest, write_spec_and_plan
from surgery.publish.model_card import write_card
from surgery.publish.pipeline_files import PipelineFile, can_link, list_pipeline_files, take_along
from surgery.publish.recipe import Checks, PreparedModel, card_facts, make_metadata, manifest_of, public_name
from surgery.publish.worker import Ask, open_verifier
from surgery.version import __version__
from surgery.written import COMPILE

Verify = Literal["none", "structure", "numeric", "full"]
Progress = Callable[[int], Callable[[int], None]]  # bytes in all -> what is told of bytes as they are written


def no_progress(total: int) -> Callable[[int], None]:  # noqa: ARG001  (a Progress)
    """Tell nobody."""
    return lambda size: None  # noqa: ARG005  (the same)


@dataclass(frozen=True)
class CompileOptions:
    """How a checkpoint is written; the command's options of these names say more."""

    verify: Verify = "numeric"
    max_shard_size: str = DEFAULT_SHARD_SIZE
    transformer_only: bool = False
    copies: bool = False
    variant: str | None = None
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class PrunedModel:
    """What was written (or, after a dry run, would have been); `manifest` is what `surgery.json` says, `checks` what
    they found for each transformer."""

    folder: Path
    prepared: PreparedModel
    manifest: Mapping[str, Any]
    seconds: Mapping[str, float]
    checks: Checks


def compile_checkpoint(
    spec: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    profile: str | Path | None = None,
    verify: Verify = "numeric",
    max_shard_size: str = DEFAULT_SHARD_SIZE,
    transformer_only: bool = False,
    copies: bool = False,
    variant: str | None = None,
    force: bool = False,
) -> Path:
    """Compile a spec file to a pruned model in the folder `out`, as `surgery compile --to checkpoint` does.

    The arguments are the command's options; `copies` is `--copy`. Returns the folder, which stock diffusers loads.

    Raises:
        InputError: a file or the model can't be read, the target can't be written, or the disk is full.
        SpecError: the spec has faults; all of them, with their places.
        RefusedError: no stock checkpoint can express the plan; or graph and checkpoint do not agree.
    """
    planned = plan_model_file(Path(spec), model=model, profile=None if profile is None else Path(profile))
    options = CompileOptions(verify, max_shard_size, transformer_only, copies, variant, force)
    return compile_planned(planned, Path(out), options).folder


def compile_planned(
    planned: AnyPlannedSource,
    out: Path,
    options: CompileOptions = CompileOptions(),
    *,
    progress: Progress = no_progress,
    measured: str | None = None,
) -> PrunedModel:
    """Write the pruned checkpoint of a planned spec into the folder `out`: of both transformers where it edits two.

    `measured` is a section of the model card on what was measured.

    Raises:
        InputError: the model's files are missing or unsound, the target can't be written, or the disk is full.
        RefusedError: no stock checkpoint can express the plan; or graph and checkpoint do not agree.
    """
    parse_size(options.max_shard_size)
    parts = parts_of(planned)
    for each in parts:
        with _told_of(each, parts):
            stock_plan(each.plan)
    if options.transformer_only and len(parts) > 1:
        raise RefusedError(
            "--transformer-only leaves one transformer, and the spec edits two; leave it out: the large files of the "
            "rest of the pipeline are linked, not copied"
        )
    if not options.dry_run:
        refuse_folder(out, COMPILE, force=options.force)
    sources = [_fetch(each.source, options) for each in parts]
    refuse_own_source(out, sources[0])
    if not options.dry_run:
        refuse_foreign(out)
    with open_verifier() as ask:
        started = time.perf_counter()
        prepared = _prepare_all(parts, sources, options, ask)
        seconds = {"discover": time.perf_counter() - started}
        checks = {
            part: {"numeric": found.agreement} if found.agreement else {} for part, found in prepared.by_part.items()
        }
        if options.dry_run:
            return PrunedModel(out, prepared, manifest_of(prepared, {}, checks, {}), seconds, checks)
        with whole_folder(out, force=options.force) as folder:
            started = time.perf_counter()
            _write_bytes(prepared, folder, options, progress)
            seconds["copy"] = time.perf_counter() - started
            started = time.perf_counter()
            for part, written in prepared.by_part.items():
                with _told_of(written.planned, parts):
                    checks[part] |= _verify(written, folder, options, ask)
            seconds["verify"] = time.perf_counter() - started
            manifest = _write_texts(prepared, folder, out, checks, measured)
    return PrunedModel(out, prepared, manifest, seconds, checks)


def _fetch(source: ModelSource, options: CompileOptions) -> ModelSource:
    found = fetch_source(source, transformer_only=options.transformer_only, variant=options.variant)
    return replace(found, pipeline=None) if options.transformer_only else found


@contextmanager
def _told_of(planned: PlannedSource, parts: Sequence[PlannedSource]) -> Iterator[None]:
    """Within it, what is wrong with one of two transformers is raised with that one's name."""
    try:
        yield
    except (InputError, RefusedError) as error:
        raise (type(error)(f"{planned.source.part}: {error}") if len(parts) > 1 else error) from None


def _prepare_all(
    parts: Sequence[PlannedSource], sources: Sequence[ModelSource], options: CompileOptions, ask: Ask
) -> PreparedModel:
    """What is written: of one transformer, or of two, and of the rest of their pipeline."""
    found = []
    for planned, source in zip(parts, sources, strict=True):
        with _told_of(planned, parts):
            found.append(_prepare(planned, source, options, ask))
    first, *second = found
    return replace(first, pipeline_files=tuple(_files_beside(sources, options)), second=second[0] if second else None)


def _files_beside(sources: Sequence[ModelSource], options: CompileOptions) -> list[PipelineFile]:
    """The files of the pipeline that come along as they are: those of no transformer that is written."""
    written = {source.part for source in sources}
    files = list_pipeline_files(sources[0], variant=options.variant)
    return [file for file in files if file.name.partition("/")[0] not in written]


def refuse_own_source(out: Path, source: ModelSource) -> None:
    """Raise InputError where the target is the model itself, holds it, or lies in it."""
    paths = [path for path in (source.folder, source.file) if path is not None]
    target = Path(os.path.realpath(out))  # which takes loops of symlinks as they are
    for path in paths:
        original = Path(source.pipeline).resolve() if source.pipeline else path.resolve()
        if target == original or target in original.parents or original in target.parents:
            raise InputError(f"{out} and the model {source.name} lie within each other; give a folder elsewhere")


def _prepare(planned: PlannedSource, source: ModelSource, options: CompileOptions, ask: Ask) -> PreparedModel:
    weights = weights_of_source(source, variant=options.variant)
    found = ask(
        "compile_plan",
        source=source_to_json(source),
        plan=planned.plan.to_json(),
        variant=options.variant,
        verify=options.verify,
    )
    new = new_checkpoint_from_json(found["new"])
    single = None if source.file is None else f"{source.file.stem}-{planned.spec.stem}.safetensors"
    size = options.max_shard_size
    byte_plan = plan_bytes(new, weights, max_shard_size=size, single=single, variant=options.variant)
    return PreparedModel(
        planned,
        source,
        weights,
        new,
        byte_plan,
        (),
        replace(identity_from_json(found["identity"]), model=public_name(planned.source.name)),
        keep_metadata(join_metadata(weights), found["orders"]),
        found["agreement"],
        {"surgery": __version__, **found["versions"]},
        options.variant,
        _arguments(options),
    )


def _arguments(options: CompileOptions) -> tuple[str, ...]:
    """The options of the command that decide what is in the files, as they would be written."""
    size = () if options.max_shard_size == DEFAULT_SHARD_SIZE else ("--max-shard-size", options.max_shard_size)
    variant = () if options.variant is None else ("--variant", options.variant)
    return (*(("--transformer-only",) if options.transformer_only else ()), *size, *variant)


def _write_bytes(prepared: PreparedModel, folder: Path, options: CompileOptions, progress: Progress) -> None:
    written = sum(each.bytes.size_bytes for each in prepared.by_part.values())
    total = written + sum(file.size_bytes for file in prepared.pipeline_files)
    linked = [file for file in prepared.pipeline_files if not options.copies and can_link(file, folder)]
    refuse_full_disk(folder.parent, total - sum(file.size_bytes for file in linked))
    advance = progress(total)
    for each in prepared.by_part.values():
        _write_transformer(each, folder, make_metadata(each, prepared.whole_plan), advance)
    for file in prepared.pipeline_files:
        take_along(file, folder, copies=options.copies, advance=advance)


def _write_transformer(
    prepared: PreparedModel, folder: Path, metadata: Mapping[str, str], advance: Callable[[int], None]
) -> None:
    """Write the weights and the config of one transformer of the folder."""
    inner = folder / prepared.source.part if prepared.is_pipeline else folder
    inner.mkdir(exist_ok=True)
    write_weights(
        inner,
        prepared.bytes,
        prepared.weights,
        metadata=metadata,
        means=_means(prepared.planned),
        advance=advance,
    )
    config = json.dumps(dict(prepared.new.config), indent=2) + "\n"
    place = inner if prepared.source.file is None else inner / "config"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(config, encoding="utf-8")


def _means(planned: PlannedSource) -> dict[str, Any]:
    """The vectors of means that the plan uses, by COMPONENT/STREAM."""
    if planned.means is None or not uses_means(planned.plan):
        return {}
    vectors = planned.means.vectors
    return {f"{path}/{stream}": vector for path, streams in vectors.items() for stream, vector in streams.items()}


def _verify(prepared: PreparedModel, folder: Path, options: CompileOptions, ask: Ask) -> dict[str, Any]:
    """What the checks of the written files say; they raise where those are wrong."""
    written = source_to_json(_written_source(prepared, folder))
    extra = list(prepared.new.unknown)
    checks = {"structure": ask("structure", source=written, variant=options.variant, extra=extra)}
    if options.verify == "full":
        means = prepared.planned.means
        checks["full"] = ask(
            "full",
            source=written,
            original=source_to_json(prepared.source),
            plan=prepared.planned.plan.to_json(),
            means=None if means is None else str(means.path),
            variant=options.variant,
        )
    return checks


def _written_source(prepared: PreparedModel, folder: Path) -> ModelSource:
    """What was written, as a model of its own; its config is read back from the file."""
    source = prepared.source
    if source.file is not None:
        return find_source(str(folder / prepared.bytes.shards[0].name))
    return find_source(str(folder / source.part if prepared.is_pipeline else folder))


def _write_texts(
    prepared: PreparedModel, folder: Path, out: Path, checks: Checks, measured: str | None
) -> dict[str, Any]:
    write_spec_and_plan(folder, prepared.spec_text, prepared.whole_plan)
    card = write_card(card_facts(prepared, out.name, checks))
    (folder / CARD).write_text(card if measured is None else put_section(card, measured), encoding="utf-8")
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    written = {
        part: facts_of_transformer(_written_source(each, folder), each.variant)
        for part, each in prepared.by_part.items()
    }
    manifest = manifest_of(prepared, sizes, checks, written)
    write_manifest(folder, manifest)
    return manifest
