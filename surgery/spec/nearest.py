"""The names that a misspelt one may have meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, or None where none is like it."""
    candidates = list(known)
    by_lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    found = difflib.get_close_matches(name[:100], candidates, n=1, cutoff=0.6)
    if found:
        return found[0]
    starting = [candidate for candidate in candidates if len(name) > 2 and candidate.startswith(name)]
    return starting[0] if len(starting) == 1 else None


def unknown_text(what: str, name: str, known: Iterable[str]) -> str:
    """`there is no stack "transfomer_blocks"; there are a, b; did you mean "a"?`."""
    names = list(known)
    exists = f"there are {', '.join(names)}" if len(names) > 1 else f"there is {names[0]}" if names else "there are none"
    best = nearest(name, names)
    advice = f'; did you mean "{best}"?' if best else ""
    return f'there is no {what} "{shorten(name)}"; {exists}{advice}'


def shorten(text: str, length: int = 60) -> str:
    """`text` on one line, cut to `length` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 3] + "..."
