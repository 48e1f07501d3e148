"""Private names of libraries: how one is looked up, and what is said where it is gone.

Only `torch_internals` and `diffusers_internals` reach such names; accelerate's and transformers' are not used. A name
is looked up where it is used, not where a module is loaded: one that is gone stops what stands on it, and nothing else.
"""

import importlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from surgery.errors import InternalsError

HOMES = ("surgery.torch_internals", "surgery.diffusers_internals")


@dataclass(frozen=True)
class PrivateName:
    """A name that a library promises to nobody.

    `since` is the first version that is known to have it, `purpose` what it takes the name to do ("... to trace").
    `look_up` returns what it names and may raise anything; it also fails where the name is there in another form.
    `is_optional` where there is a way without it, and less comes of it.
    """

    library: str
    name: str
    _: KW_ONLY
    since: str
    purpose: str
    look_up: Callable[[], Any]
    is_optional: bool = False

    @property
    def failure(self) -> str | None:
        """Why the look-up fails; None where the installed version has it."""
        try:
            self.look_up()
        except Exception as error:  # whatever a library answers that has moved
            return next(iter(str(error).strip().splitlines()), type(error).__name__)
        return None

    @property
    def absence(self) -> str:
        """What is missing, and what for."""
        return f"{self.library} {version_of(self.library)} has no {self.name}, which it takes to {self.purpose}"

    def find(self) -> Any:
        """What it names.

        Raises:
            InternalsError: the installed version of the library does not have it.
        """
        try:
            return self.look_up()
        except Exception as error:  # whatever a library answers that has moved
            raise InternalsError(f"{self.absence}; `surgery doctor` says which versions have it") from error


def require(is_so: bool, fact: str) -> None:
    """Let a look-up fail with this fact unless it is so."""
    if not is_so:
        raise LookupError(fact)


def version_of(library: str) -> str:
    """The installed version of a library."""
    try:
        return version(library)
    except PackageNotFoundError:
        return str(getattr(importlib.import_module(library), "__version__", "of an unknown version"))


def private_names() -> list[PrivateName]:
    """All of them, by library; loads torch."""
    homes = [importlib.import_module(home) for home in HOMES]
    return [found for home in homes for found in vars(home).values() if isinstance(found, PrivateName)]
