"""Text that others have written -> text that a terminal can be given."""

import re

# Control characters but for tab and line feed; what hides, or turns around, the text beside it; what breaks a line.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def show_safely(text: str) -> str:
    """A text with escapes like `\\x1b` for what would steer a terminal, or show something else than there is.

    Titles, and names of files, stacks and tensors, come from others' files.
    """
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
