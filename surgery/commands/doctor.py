"""`surgery doctor [MODEL]`: what is installed and fits together, and what of a model works, and why not."""

import importlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.anatomy.anatomy import Stack
from surgery.anatomy.hub_cache import hub_cache_folder
from surgery.commands.output import JsonFlag, print_json, say
from surgery.errors import InputError, InternalsError
from surgery.internals import PrivateName, private_names, version_of
from surgery.kept import cache_folder
from surgery.tested import TESTED, is_tested, tested_range
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.anatomy.sources import ModelSource

DISTRIBUTION = "layer-surgery"
IMPORTED = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "tokenizers", "PIL", "yaml", "numpy")


class Status(StrEnum):
    """How a finding is meant."""

    ok = "ok"
    note = "note"
    fault = "fault"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is, how it is, and what to do where it is not well."""

    status: Status
    subject: str
    text: str
    advice: str = ""

    @property
    def line(self) -> list[str]:
        """The cells of its line."""
        return [self.status.value, self.subject, self.text + (f"; {self.advice}" if self.advice else "")]


def run(
    model: Annotated[
        str | None,
        typer.Argument(help="A hub id, a pipeline folder, a transformer folder (config.json is enough), or demo."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say what is installed and fits together and, of a model, whether it can be traced and edited, and why not.

    Exit status 1 if there is a fault.
    """
    findings = [*examine_environment(), *([] if model is None else examine_model(model))]
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        say(table([finding.line for finding in findings], wrap={2}))
    if any(finding.status is Status.fault for finding in findings):
        raise typer.Exit(1)


def examine_environment() -> Iterator[Finding]:
    """Versions against what the package asks for, imports, devices, folders."""
    yield Finding(Status.ok, "python", platform.python_version())
    yield from examine_requirements()
    for name in IMPORTED:
        yield from examine_import(name)
    yield from examine_tested()
    yield from examine_private_names()
    yield from examine_devices()
    yield examine_folder("anatomies are kept in", str(cache_folder()))
    offline = " (HF_HUB_OFFLINE is set: nothing is downloaded)" if os.environ.get("HF_HUB_OFFLINE") else ""
    yield Finding(Status.ok, "hub cache", f"{hub_cache_folder()}{offline}")


def examine_requirements(distribution: str = DISTRIBUTION) -> Iterator[Finding]:
    """Each requirement of the package, and of its extras, against what is installed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in requires(distribution) or ()]
        yield Finding(Status.ok, distribution, version(distribution))
    except PackageNotFoundError:
        yield Finding(Status.note, distribution, "is run from a checkout and not installed", "try pip install -e .")
        return
    for requirement in requirements:
        extra = _extra_of(str(requirement.marker)) if requirement.marker else None
        if extra == "dev":
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            advice = f"pip install '{distribution}[{extra}]'" if extra else f"pip install '{requirement}'"
            status = Status.note if extra else Status.fault
            yield Finding(status, requirement.name, f"is not installed{f' (extra {extra})' if extra else ''}", advice)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding(Status.ok, requirement.name, found)
        else:
            wanted = f"{requirement.name}{requirement.specifier}"
            yield Finding(Status.fault, requirement.name, f"{found} does not fit", f"pip install '{wanted}'")


def _extra_of(marker: str) -> str | None:
    head, equals, value = marker.partition("extra == ")
    return value.strip("\"' ") if equals and not head.strip() else None


def examine_import(name: str) -> Iterator[Finding]:
    """A library that is installed but can't be imported: builds that do not fit each other."""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken build raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        yield Finding(Status.fault, name, f"can't be imported: {reason}", "install builds that fit each other")


def examine_tested() -> Iterator[Finding]:
    """Libraries at a version that the tests have not run with."""
    ranges = ", ".join(tested_range(library) for library in TESTED)
    for library in TESTED:
        try:
            found = version_of(library)
        except Exception:  # told above
            continue
        if not is_tested(library, found):
            yield Finding(Status.note, library, f"{found} is untested", f"tested with {ranges}")


def examine_private_names() -> Iterator[Finding]:
    """Whether the names that this stands on, and that libraries do not promise to keep, are there."""
    try:
        names = private_names()
    except Exception:  # told above
        return
    failures = [(name, name.failure) for name in names]
    yield from (describe_absence(name, failure) for name, failure in failures if failure)
    if not any(failure for _, failure in failures):
        libraries = " and ".join(dict.fromkeys(name.library for name in names))
        yield Finding(Status.ok, "private names", f"all {len(names)} that are used of {libraries} are there")


def describe_absence(name: PrivateName, failure: str) -> Finding:
    """What a name that is gone takes with it; a note where there is a way without it."""
    text = f"{name.absence} ({failure}); it was there from {name.since} on"
    advice = f"{tested_range(name.library)} are known to work"
    return Finding(Status.note if name.is_optional else Status.fault, name.library, text, advice)


def examine_devices() -> Iterator[Finding]:
    """What torch can compute on."""
    try:
        import torch
    except Exception:  # told above
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Finding(Status.ok, f"cuda:{index}", torch.cuda.get_device_name(index))
    elif torch.backends.mps.is_available():
        yield Finding(Status.ok, "mps", "Apple GPU")
    else:
        yield Finding(Status.note, "devices", f"no GPU; {torch.get_num_threads()} threads on the CPU")


def examine_folder(subject: str, path: str) -> Finding:
    """Whether a folder, or the nearest one above it that is there, can be written to."""
    above = path
    while not os.path.exists(above):  # noqa: PTH110  (a text is shown, and dirname ends at the root)
        above = os.path.dirname(above) or "."  # noqa: PTH120
    if os.access(above, os.W_OK):
        return Finding(Status.ok, subject, path)
    return Finding(Status.note, subject, f"{path}, which can't be written to", "set SURGERY_CACHE to another folder")


def examine_model(model: str) -> Iterator[Finding]:
    """Where a model is, whether it can be built and traced, and what can be done with each of its stacks."""
    from surgery.anatomy.from_model import read_anatomy
    from surgery.anatomy.sources import build_on_meta, find_source

    try:
        source = find_source(model)
        yield describe_source(source)
        built = build_on_meta(source)
        started = time.perf_counter()
        anatomy = read_anatomy(built)
    except (InputError, InternalsError) as error:
        yield Finding(Status.fault, model, str(error))
        return
    seconds = time.perf_counter() - started
    if not anatomy.has_example_inputs:
        advice = f"it is traced when it first runs; `surgery learn {model}` records a call"
        yield Finding(Status.note, "trace", anatomy.why_no_inputs, advice)
    elif anatomy.trace_failure is not None:
        advice = "it is traced again when it first runs, whole or else in part; what can't be traced is refused then"
        yield Finding(Status.note, "trace", anatomy.trace_failure, advice)
    else:
        yield Finding(Status.ok, "trace", f"the whole forward, in {seconds:.2f} s")
    for stack in anatomy.stacks:
        yield examine_stack(stack)


def describe_source(source: "ModelSource") -> Finding:
    """Where a model comes from, and what of it is there."""
    where = f"revision {source.revision}" if source.revision else str(source.folder)
    weights = "no weights here" if source.weights_dtype is None else f"weights in {source.weights_dtype}"
    pipeline = "a pipeline" if source.pipeline else "a bare transformer"
    return Finding(Status.ok, source.name, f"{source.class_name}, {pipeline}, {where}, {weights}")


def examine_stack(stack: Stack) -> Finding:
    """What can be done with one stack."""
    head = f"{stack.num_blocks} blocks"
    if stack.refusal is not None:
        return Finding(Status.note, stack.name, f"{head} that can't be edited: {stack.refusal}")
    if stack.streams is None:
        return Finding(
            Status.note,
            stack.name,
            f"{head}, streams unknown until run",
            "whether it can be edited is known when it first runs; replace is refused until then",
        )
    streams = ", ".join(stack.streams)
    fixed = [kind.missing_streams for kind in stack.kinds if kind.missing_streams]
    notes = [f"one block returns no {' and no '.join(names)} and must run last, or not at all" for names in fixed]
    if stack.by_number:
        names = ", ".join(stack.by_number)
        notes.append(f"{names} is made for each block by its number, so a stock checkpoint can't renumber them")
    components = [component for kind in stack.kinds for component in kind.components if component.refusal is None]
    replaced = ", ".join(dict.fromkeys(component.name for component in components if "." not in component.name))
    text = f"{head}, streams {streams}; all operations work, replace on {replaced or 'no component'}"
    return Finding(Status.ok, stack.name, "; ".join([text, *notes]))
