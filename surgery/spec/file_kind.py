"""What a file is that is no spec, by its first bytes: so that a message can say what was given for one."""

import re
from pathlib import Path

BEGINNINGS = (
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"PK\x03\x04", "an archive (.pt2, .pt, .npz and .zip are such)"),
    (b"\x1f\x8b", "a compressed file"),
    (b"\x80\x02", "a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"%PDF", "a PDF file"),
)
SAFETENSORS = "a safetensors file"
SPEC = re.compile(rb"^surgery[ \t]*:", re.MULTILINE)
HEAD_BYTES = 4096


def kind_of_content(content: bytes, suffix: str = "") -> str | None:
    """What content is that can't be a spec, by its beginning and the ending of its file; None of what may be one."""
    if content.lstrip().startswith(b"{") and b"surgery" not in content:
        return "a JSON document"
    if suffix == ".safetensors":
        return SAFETENSORS
    if len(content) > 9 and content[8:9] == b"{" and int.from_bytes(content[:8], "little") < 2**32:
        return SAFETENSORS
    return next((kind for beginning, kind in BEGINNINGS if content.startswith(beginning)), None)


def is_spec(path: str | Path) -> bool:
    """Whether a file reads like a spec; False of one that can't be read."""
    try:
        with Path(path).open("rb") as file:
            return SPEC.search(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False
