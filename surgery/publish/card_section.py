"""A section of a model card between two marks: put there, or in the place of the one that is there; all else stays."""

import contextlib
from pathlib import Path

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import write_whole
from surgery.publish.manifest import CARD, MANIFEST, read_manifest, write_manifest

BEGIN, END = "<!-- surgery: measured -->", "<!-- surgery: end of measured -->"
BEFORE = "## Limits"  # of the cards that `surgery compile` writes; a section goes behind all else in others


def put_section(card: str, section: str) -> str:
    """A card with a section, which takes the place of an older one; not a letter of the rest is changed.

    Raises:
        InputError: one of the marks is there without the other, or more than once.
    """
    ending = "\r\n" if "\r\n" in card else "\n"
    marked = ending.join([BEGIN, *section.strip().splitlines(), END])
    lines = card.splitlines(keepends=True)
    begins, ends = ([number for number, line in enumerate(lines) if line.strip() == mark] for mark in (BEGIN, END))
    if not begins and not ends:
        return _insert(lines, marked, ending)
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise InputError(
            f"it has {len(begins)} lines `{BEGIN}` and {len(ends)} lines `{END}`, and one of each, in this order, hold "
            "what was measured; take the others out"
        )
    last = lines[ends[0]]
    after = last[len(last.rstrip("\r\n")) :]
    return "".join([*lines[: begins[0]], marked + after, *lines[ends[0] + 1 :]])


def _insert(lines: list[str], marked: str, ending: str) -> str:
    places = [number for number, line in enumerate(lines) if line.rstrip() == BEFORE]
    place = places[0] if len(places) == 1 else len(lines)
    above, below = "".join(lines[:place]), "".join(lines[place:])
    gap = "" if not above or above.endswith(ending * 2) else ending if above.endswith("\n") else ending * 2
    return f"{above}{gap}{marked}{ending}{ending if below else ''}{below}"


def update_card(folder: Path, section: str) -> Path:
    """Put a section into the model card of a folder, which is there as it was or as it shall be; one is begun where
    there is none.

    Raises:
        InputError: the card is a link or no text, or its marks are damaged.
    """
    path = folder / CARD
    if path.is_symlink():
        raise InputError(f"{path} is a link, and what it leads to may be another's; put a file of its own there")
    if not path.exists():
        write_whole(path, put_section(f"# {folder.resolve().name}\n\n", section))
        return path
    with told_as(f"{path} can't be read"):
        before = path.read_bytes()
        text = before.decode("utf-8")
    try:
        after = put_section(text, section).encode()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    mode = path.stat()
    write_whole(path, after)
    with contextlib.suppress(OSError):
        path.chmod(mode.st_mode)
    _note_size(folder, len(before), len(after))
    return path


def _note_size(folder: Path, before: int, after: int) -> None:
    """Have the manifest know the new card as its own, where it knew the old one so: a user's own is not."""
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    files = manifest.get("files")
    if isinstance(files, dict) and files.get(CARD) == before:
        files[CARD] = after
        write_manifest(folder, manifest)
