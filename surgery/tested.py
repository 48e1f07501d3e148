"""The versions of libraries that the tests have passed with; `pyproject.toml` asks for none that is older.

The laws, with the oldest and the newest (`make test-oldest`, `make test-newest`); the whole suite, with the lock's.
"""

TESTED = {  # library: the oldest and the newest version
    "torch": ("2.13", "2.15"),
    "diffusers": ("0.42", "0.42.1"),
}


def tested_range(library: str) -> str:
    """`torch 2.13 to 2.15`."""
    oldest, newest = TESTED[library]
    return f"{library} {oldest} to {newest}"


def is_tested(library: str, version: str) -> bool:
    """Whether a version lies in the range; builds (`+cpu`) and pre-releases of one count as the version itself."""
    from packaging.version import Version

    oldest, newest = TESTED[library]
    return Version(oldest) <= Version(Version(version).base_version) <= Version(newest)
