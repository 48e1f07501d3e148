"""Files that the hub's client has downloaded before, found without importing it (0.4 s): its layout is documented.

`CACHE/models--OWNER--NAME/refs/main` holds a commit; the files lie in `snapshots/COMMIT/`.
"""

import os
from pathlib import Path

from surgery.files import expand_home

LONGEST_REASON = 200


def hub_cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloads, by the same environment variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return expand_home(os.path.expandvars(os.environ[variable]))
    home = os.environ.get("HF_HOME")
    if home:
        return expand_home(os.path.expandvars(home)) / "hub"
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def cached_snapshot(model: str, revision: str | None = None) -> Path | None:
    """The folder of a commit of a hub id that was downloaded; without one, of the newest of its main branch.

    None where there is none.
    """
    repository = hub_cache_folder() / f"models--{model.replace('/', '--')}"
    try:
        commit = revision or (repository / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = repository / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def explain_hub_error(error: Exception) -> str:
    """One line on what the hub's client raised, and what to do. (Its errors are known by their names.)"""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return "HF_HUB_OFFLINE keeps to the cache"
    if "GatedRepoError" in names:
        return "it is gated; accept its conditions on its page on the hub, then `hf auth login`"
    if "RepositoryNotFoundError" in names:
        return "the hub has no such model, or it is private; check the name, or `hf auth login`"
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."
