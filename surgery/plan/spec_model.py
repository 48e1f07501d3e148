"""Which model a spec is for: what the call says, or what the spec's `model:` names.

A path in a spec is relative to the spec, as its other paths are; one of the call to the working directory.
"""

import warnings
from pathlib import Path

from surgery.anatomy.sources import HUB_PREFIX, find_source, is_hub_id
from surgery.bundled import DEMO_NAME
from surgery.errors import InputError, SurgeryNote
from surgery.files import expand_home, is_there
from surgery.spec.load import Spec


def model_of_spec(spec: Spec, override: str | None) -> str:
    """The name of the model to work on, as `find_source` takes it.

    Of a spec it is a path beside the spec if there is one, else a hub id, else a path in the working directory, with a
    note.

    Raises:
        InputError: neither the spec nor the call names one.
    """
    name = override or spec.model
    if name is None:
        raise InputError(f"{spec.file} names no model; write model: in the spec, or give --model")
    if override is not None or name == DEMO_NAME or expand_home(name).is_absolute():
        return name
    beside = spec.folder / name
    if is_there(beside):
        return str(beside)
    if not is_there(Path(name)):
        return name
    if is_hub_id(name) and _is_on_hub(name):
        _note(f"{spec.file}: {name} is taken from the hub, and not from the working directory; give --model for that")
        return HUB_PREFIX + name
    _note(
        f"{spec.file}: there is no {name} beside the spec, so that of the working directory is taken; "
        f"give --model {name} to say so"
    )
    return name


def _note(text: str) -> None:
    warnings.warn(text, SurgeryNote, stacklevel=3)


def _is_on_hub(name: str) -> bool:
    try:
        find_source(HUB_PREFIX + name)
    except InputError:
        return False
    return True
