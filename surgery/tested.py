"""The versions of libraries that the whole test suite has passed with; `pyproject.toml` asks for none that is older."""

TESTED = {  # library: the oldest and the newest version
    "torch": ("2.11", "2.14.1"),
    "diffusers": ("0.42", "0.42.1"),
}


def tested_range(library: str) -> str:
    """`torch 2.11 to 2.14.1`."""
    oldest, newest = TESTED[library]
    return f"{library} {oldest} to {newest}"


def is_tested(library: str, version: str) -> bool:
    """Whether a version lies in the range; builds (`+cpu`) and pre-releases of one count as the version itself."""
    from packaging.version import Version

    oldest, newest = TESTED[library]
    return Version(oldest) <= Version(Version(version).base_version) <= Version(newest)
