"""Reading one field of a mapping: its type and range, and a fault that says what to write where they are wrong."""

from collections.abc import Iterable, Mapping

from surgery.spec.document import Entries, Items, Scalar, Value
from surgery.spec.limits import MAX_INTEGER, MAX_REAL
from surgery.spec.nearest import nearest, shorten, unknown_text
from surgery.spec.places import Faults


def describe(value: Value) -> str:
    """A value as a message names it."""
    match value:
        case Scalar(bool() as flag, text):
            return f"{text} (which YAML reads as {str(flag).lower()})" if text not in ("true", "false") else text
        case Scalar(None):
            return "nothing"
        case Scalar(str(), text):
            return f'"{shorten(text)}"'
        case Scalar():
            return shorten(value.text)
        case Items():
            return "a list"
        case Entries():
            return "a mapping"


def check_keys(
    entries: Entries, known: Iterable[str], what: str, faults: Faults, *, synonyms: Mapping[str, str] | None = None
) -> Entries:
    """A fault for every key that is not known; the entries as if every misspelt key were the one that it may mean.

    So what stands under a misspelt key is checked too, and is not said to be missing. `synonyms` are what others call
    a key.
    """
    names = list(known)
    present = {key.text for key, _ in entries.entries}
    found: list[tuple[Scalar, Value]] = []
    for key, value in entries.entries:
        if key.text in names:
            found.append((key, value))
            continue
        meant = (synonyms or {}).get(key.text.lower()) or nearest(key.text, names)
        faults.add(key.place, unknown_text("key", key.text, names, f"in {what}", meant=meant))
        if meant is not None and meant not in present:
            present.add(meant)
            found.append((Scalar(meant, meant, key.place), value))
    return Entries(tuple(found), entries.place)


def read_text(value: Value, what: str, faults: Faults) -> str | None:
    """A non-empty string."""
    if isinstance(value, Scalar) and isinstance(value.value, str) and value.value.strip():
        return value.value
    faults.add(value.place, f"{what} is {describe(value)}; write a text")
    return None


def read_integer(value: Value, what: str, faults: Faults, *, minimum: int, maximum: int = MAX_INTEGER) -> int | None:
    """An integer of at least `minimum`."""
    number = value.value if isinstance(value, Scalar) else None
    if isinstance(number, int) and not isinstance(number, bool):
        if minimum <= number <= maximum:
            return number
        bound = f"at least {minimum}" if number < minimum else f"at most {maximum}"
        faults.add(value.place, f"{what} is {describe(value)}; write an integer of {bound}")
        return None
    faults.add(value.place, f"{what} is {describe(value)}; write an integer of at least {minimum}")
    return None


def read_number(value: Value, what: str, faults: Faults) -> float | None:
    """A finite number."""
    number = value.value if isinstance(value, Scalar) else None
    if isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < MAX_REAL:
        return float(number)
    faults.add(value.place, f"{what} is {describe(value)}; write a number, like 0.5")
    return None


def read_choice(value: Value, what: str, choices: Iterable[str], faults: Faults) -> str | None:
    """One of some words."""
    names = list(choices)
    if isinstance(value, Scalar) and value.text in names:
        return value.text
    if isinstance(value, Scalar):
        faults.add(value.place, unknown_text(what, value.text, names))
    else:
        faults.add(value.place, f"{what} is {describe(value)}; write one of {', '.join(names)}")
    return None
