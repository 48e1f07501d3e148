"""YAML text -> a training config. All faults of a file in one go, each with its place, as those of specs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.spec.document import Entries, Scalar, read_document
from surgery.spec.fields import check_keys, describe
from surgery.spec.limits import MAX_BYTES
from surgery.spec.places import Faults, Place
from surgery.training.dit.config import TrainConfig
from surgery.training.dit.config_sections import SECTIONS, TOP, Reader
from surgery.training.dit.joined_config import Found, join_config

VERSION = "v1"
BEGINNING = f"train: {VERSION}"


def load_config(path: str | Path) -> TrainConfig:
    """Read a config from a file.

    Raises:
        InputError: the file can't be read.
        SpecError: the config has faults; all of them, with their places.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    return read_config(text, file=str(path), folder=Path(path).parent)


def read_config(text: str | bytes, *, file: str = "train.yaml", folder: Path | None = None) -> TrainConfig:
    """A config from its text; `file` is what messages call it, and paths are relative to `folder`.

    Raises:
        SpecError: the config has faults; all of them, with their places.
    """
    faults = Faults(file)
    document = _document_of(text, faults)
    found = None if document is None else _read_sections(document, faults)
    config = None if found is None else join_config(found, faults, folder or Path())
    faults.raise_if_any()
    assert config is not None, "a config without faults is complete"
    return replace(config, text=text.decode("utf-8-sig") if isinstance(text, bytes) else text)


def _document_of(text: str | bytes, faults: Faults) -> Entries | None:
    """The mapping of a text that is meant as a config; None and a fault where it is none."""
    start = Place(1, 1)
    if not text.strip():
        faults.add(start, f"the file is empty; a training config begins with `{BEGINNING}`")
        return None
    document = read_document(text, faults)
    if document is None:
        return None
    if not isinstance(document, Entries):
        faults.add(start, f"the config is {describe(document)}; write a mapping that begins with {BEGINNING}")
        return None
    if document.get("surgery") is not None and document.get("train") is None:
        faults.add(start, f"this is a spec; a training config begins with `{BEGINNING}`")
        return None
    return document


def _read_sections(document: Entries, faults: Faults) -> Found:
    document = check_keys(document, ("train", *TOP, *SECTIONS), "a training config", faults)
    _check_version(document, faults)
    found = Found({name: {} for name in ("", *SECTIONS)}, {name: document.key_place(name) for name in SECTIONS})
    _read_values(document, TOP, "", found, faults)
    for name, readers in SECTIONS.items():
        section = document.get(name)
        if isinstance(section, Entries):
            _read_values(check_keys(section, readers, name, faults), readers, name, found, faults)
        elif section is not None:
            faults.add(section.place, f"{name} is {describe(section)}; write a mapping of {', '.join(readers)}")
            found.faulty.add(name)
    return found


def _check_version(document: Entries, faults: Faults) -> None:
    version = document.get("train")
    if version is None:
        faults.add(document.place, f"the version is missing; write {BEGINNING}")
    elif not isinstance(version, Scalar) or version.text != VERSION:
        faults.add(version.place, f"the version is {describe(version)}; write {BEGINNING}")


def _read_values(entries: Entries, readers: Mapping[str, Reader], section: str, found: Found, faults: Faults) -> None:
    for key, value in entries.entries:
        if key.text not in readers:
            continue
        name = f"{section}.{key.text}".lstrip(".")
        found.places[name] = value.place
        read: Any = readers[key.text](value, key.text, faults)
        if read is None:
            found.faulty.add(name)
        else:
            found.values[section][key.text] = read
