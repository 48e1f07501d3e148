"""What a run has measured that is not finished <-> a file: it goes on from there as if undisturbed, to the bit."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.profiles.layer_profile import Profile
from surgery.profiles.profile_file import read_profile, write_profile

REQUEST, SAMPLES = "request", "samples"


@dataclass(frozen=True)
class Unfinished:
    """The file of a request's run, by the request's key."""

    path: Path
    key: str

    def write(self, profile: Profile) -> None:
        """Write what was measured in whole batches; its recipe names their samples."""
        recipe = {REQUEST: self.key, SAMPLES: list(profile.recipe[SAMPLES])}
        write_profile(replace(profile, recipe=recipe), self.path)

    def resume(self) -> Profile | None:
        """What is there; None where there is nothing that can be read, or it is of another request."""
        try:
            profile = read_profile(self.path)
            with told_as(f"{self.path} is damaged"):
                is_own = profile.recipe[REQUEST] == self.key
                samples = [str(name) for name in profile.recipe[SAMPLES]]
        except InputError:
            self._put_aside()
            return None
        return replace(profile, recipe={SAMPLES: samples}) if is_own else None

    def _put_aside(self) -> None:
        """A file that can't be read is not written over: it may hold the sums of hours."""
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
