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


def unknown_text(what: str, name: str, known: Iterable[str], where: str = "", *, meant: str | None = None) -> str:
    """`there is no stack "transfomer_blocks" in Model; there are a, b; did you mean "a"?`; `where` is "in Model".

    What is `meant` is the nearest name, unless the caller knows better.
    """
    names = list(known)
    exists = (
        f"there are {', '.join(names)}" if len(names) > 1 else f"there is {names[0]}" if names else "there are none"
    )
    best = meant or nearest(name, names)
    advice = f'; did you mean "{best}"?' if best else ""
    sought = " ".join(word for word in (what, f'"{shorten(name)}"', where) if word)
    return f"there is no {sought}; {exists}{advice}"


def shorten(text: str, length: int = 60) -> str:
    """`text` on one line, cut to `length` characters, with escapes for what can't be printed."""
    flat = " ".join(text[: 4 * length].split())
    flat = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in flat)
    return flat if len(flat) <= length else flat[: length - 3] + "..."
