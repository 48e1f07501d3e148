"""Plain data <-> plain data that JSON can hold: it has no NaN and no infinity, and readers other than Python's refuse
them. They become null, and the document says where each was and what: `{"not_finite": {"/rows/0/value": "Infinity"}}`
(places are JSON pointers, RFC 6901).
"""

import json
import math
from collections.abc import Mapping
from typing import Any

NOT_FINITE = "not_finite"
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_finite(document: Any) -> Any:
    """A document for JSON; of a list, each member says its own. Without such numbers, as it is."""
    if isinstance(document, (list, tuple)):
        return [to_finite(each) for each in document]
    found: dict[str, str] = {}
    plain = _plain(document, "", found)
    return {**plain, NOT_FINITE: found} if found and isinstance(plain, dict) else plain


def from_finite(document: Any) -> Any:
    """What `to_finite` was given; a document without such numbers, or that names them itself as Python does, as it is.

    Raises:
        KeyError, IndexError, TypeError, ValueError: a place that it names is not there, or the number is none of these.
    """
    if isinstance(document, list):
        return [from_finite(each) for each in document]
    if isinstance(document, dict):
        for place, word in document.pop(NOT_FINITE, {}).items():
            *above, last = [_unescaped(key) for key in place.split("/")[1:]]
            parent = document
            for key in above:
                parent = parent[_index(parent, key)]
            parent[_index(parent, last)] = WORDS[word]
    return document


def _plain(value: Any, place: str, found: dict[str, str]) -> Any:
    """A value with null for what is not finite, which is added to `found` by its place."""
    match value:
        case float() if not math.isfinite(value):
            found[place] = json.dumps(float(value))
            return None
        case Mapping():
            return {key: _plain(each, f"{place}/{_escaped(str(key))}", found) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each, f"{place}/{number}", found) for number, each in enumerate(value)]
    return value


def _index(parent: Any, key: str) -> int | str:
    return int(key) if isinstance(parent, list) else key


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")
