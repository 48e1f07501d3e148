"""`surgery compile --to checkpoint`: what is shown while a pruned model is written, and after it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from surgery.commands.output import bytes_text, count_text, share_text
from surgery.progress import show_progress
from surgery.publish.pruned_model import Progress, PrunedModel
from surgery.publish.recipe import PreparedModel, config_changes, describe_check, loading_code, notes_on_files
from surgery.spec.selector import SECOND
from surgery.text_table import table

NUMERIC = {"numeric", "full"}
UNCHECKED = "not run: that the forward does not go by the blocks' numbers was not checked"


@contextmanager
def show_bytes() -> Iterator[Progress]:
    """Progress in bytes on standard error, from when their number is known."""
    with ExitStack() as stack:

        def start(total: int) -> Callable[[int], None]:
            return stack.enter_context(show_progress(total, unit="B", label="writing")).advance

        yield start


def pruned_to_json(pruned: PrunedModel) -> dict[str, Any]:
    """The document of `--json`: the manifest, and the plan of bytes; that of a second transformer below its name."""
    prepared, second = pruned.prepared, pruned.prepared.second
    of_second = {} if second is None else {SECOND: {**pruned.manifest[SECOND], **_bytes_to_json(second)}}
    return {
        **pruned.manifest,
        "out": str(pruned.folder),
        "seconds": dict(pruned.seconds),
        **_bytes_to_json(prepared),
        "components": {file.name: file.size_bytes for file in prepared.pipeline_files},
        **of_second,
    }


def _bytes_to_json(prepared: PreparedModel) -> dict[str, Any]:
    return {
        "shards": [
            {
                "name": shard.name,
                "bytes": shard.size_bytes,
                "tensors": len(shard.tensors),
                "runs": len(shard.pieces()),
            }
            for shard in prepared.bytes.shards
        ],
        "dropped": list(prepared.new.dropped),
        "unknown": list(prepared.new.unknown),
    }


def describe_pruned(pruned: PrunedModel, *, dry_run: bool) -> str:
    """What was written, or would be; what it was checked against; how it is loaded."""
    prepared = pruned.prepared
    lines = [
        line
        for part, each in prepared.by_part.items()
        for line in _describe_transformer(
            each,
            pruned.folder if prepared.second is None else pruned.folder / part,
            pruned.checks[part],
            dry_run=dry_run,
        )
    ]
    return "\n".join(lines if dry_run else [*lines, "", loading_code(prepared, str(pruned.folder))])


def _describe_transformer(
    prepared: PreparedModel, folder: Path, checks: Mapping[str, Any], *, dry_run: bool
) -> list[str]:
    plan = prepared.bytes
    before, dropped = prepared.weights, prepared.new.dropped
    copied = plan.size_bytes - plan.computed_bytes
    runs = sum(len(shard.pieces()) for shard in plan.shards)
    rows = [
        ["copied", bytes_text(copied), f"in {runs} runs of bytes"],
        ["changed", bytes_text(plan.computed_bytes), "zeros, means and scaled weights"],
        ["dropped", bytes_text(prepared.dropped_bytes), f"{len(dropped)} tensors"],
    ]
    if prepared.repeated_bytes:
        rows.append(["repeats", bytes_text(prepared.repeated_bytes), "of the copied; the graph backend shares them"])
    if prepared.pipeline_files:
        taken = sum(file.size_bytes for file in prepared.pipeline_files)
        rows.append(
            ["components", bytes_text(taken), f"{len(prepared.pipeline_files)} files of the rest of the pipeline"]
        )
    share = share_text(plan.num_values, before.num_values)
    changes = ", ".join(f"{name}: {value}" for name, value in config_changes(prepared).items())
    return [
        f"{folder}: {'would hold' if dry_run else 'holds'} a {prepared.source.class_name}, "
        f"{count_text(plan.num_values)} parameters ({share} of {count_text(before.num_values)}), "
        f"{bytes_text(plan.size_bytes)}",
        *table(rows, indent="  ", right={1}, wrap={2}).splitlines(),
        *([f"  config      {changes}"] if changes else []),
        *(f"  {shard.name}  {bytes_text(shard.size_bytes)}" for shard in plan.shards),
        *(f"  {describe_check(kind, found)}" for kind, found in checks.items()),
        *(f"  note: {note}" for note in notes_on_files(prepared)),
        *([] if NUMERIC & checks.keys() else [f"  {UNCHECKED}"]),
    ]


def describe_seconds(pruned: PrunedModel) -> str:
    """How long each part took: finding out what to write, copying, and verifying what was written."""
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in pruned.seconds.items())
