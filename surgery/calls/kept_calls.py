"""Calls of models, as rows, by class, config and version, in the user's cache: recorded, or found by trying.

Nothing here imports torch: whether a call was recorded is asked of models that are known without it.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import key_of_recipe
from surgery.kept import keep, kept_file, recall
from surgery.version import __version__, diffusers_version

FORMAT = 2  # of the files; raised when more calls can be found, too
SHELF = "calls"
BY_HAND, SHIPPED, FOUND, RECORDED = "row", "found row", "config", "call"


@dataclass(frozen=True)
class KeptCall:
    """A row (see `call_rows`) and its free sizes; None where nothing was found by trying.

    `known_from` is `row` (written by hand, and shipped), `found row` (found by trying, and shipped), `config` (found by
    trying) or `call TIME` (recorded then, in UTC). `failure` says why the forward does not run with a row that ships.
    """

    row: Mapping[str, Any] | None
    sizes: Mapping[str, int]
    known_from: str
    failure: str = ""

    @property
    def works(self) -> bool:
        """Whether a call can be made of it."""
        return self.row is not None and not self.failure

    @property
    def is_by_hand(self) -> bool:
        """Whether a person wrote the row."""
        return self.known_from == BY_HAND

    @property
    def is_recorded(self) -> bool:
        """Whether it is of a real call."""
        return self.known_from.startswith(RECORDED)

    @property
    def recorded_at(self) -> str:
        """When it was recorded, in UTC (ISO 8601); nothing where it was not."""
        return self.known_from.removeprefix(f"{RECORDED} ") if self.is_recorded else ""


def key_of_call(class_name: str, config: Mapping[str, Any]) -> str:
    """The name under which a call of a model with this whole config, defaults included, is kept."""
    return key_of_recipe(
        {
            "format": FORMAT,
            "surgery": __version__,
            "diffusers": diffusers_version(),
            "class": class_name,
            "config": {name: _plain(value) for name, value in config.items() if not name.startswith("_")},
        }
    )


def _plain(value: Any) -> Any:
    """What JSON has of it; of all else its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def recall_call(key: str) -> KeptCall | None:
    """What was kept under a key; None where there is nothing, or it is damaged, or could be another user's."""
    with contextlib.suppress(InputError), told_as("it is recorded anew"):
        found = recall(kept_file(SHELF, key))
        if isinstance(found["row"], (dict, type(None))) and isinstance(found["known_from"], str):
            sizes = {str(name): int(size) for name, size in found["sizes"].items()}
            return KeptCall(found["row"], sizes, found["known_from"], str(found.get("failure", "")))
    return None


def keep_call(key: str, call: KeptCall) -> bool:
    """Keep a call; whether it was."""
    return keep(kept_file(SHELF, key), asdict(call))


def is_recorded_since(key: str, known_from: str) -> bool:
    """Whether a call of a model was recorded that is not the one that its anatomy, `known_from`, was read with."""
    found = recall_call(key)
    return found is not None and found.is_recorded and found.known_from != known_from
