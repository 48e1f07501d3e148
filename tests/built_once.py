"""Classes on the meta device and shrunken models, made once a config: many tests ask for the same few.

They are read, never written to. `shrink_source` itself is tested in tests/verify/test_numeric.py.
"""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.checkpoint import compile_plan
from surgery.verify import numeric
from surgery.verify.shrink import shrink_source

Build = Callable[[ModelSource], Any]


def once_a_config(build: Build) -> Build:
    """The same function, run once for each config; one that raises is run again."""
    found: dict[str, Any] = {}

    @functools.wraps(build)
    def build_once(source: ModelSource) -> Any:
        key = json.dumps(dict(source.config), sort_keys=True, default=repr)
        if key not in found:
            found[key] = build(source)
        return found[key]

    return build_once


BUILD_ONCE, SHRINK_ONCE = once_a_config(build_on_meta), once_a_config(shrink_source)


@contextmanager
def building_once() -> Iterator[None]:
    """Within it, what is compiled and what is shrunken is built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_plan, "build_on_meta", BUILD_ONCE)
        patch.setattr(numeric, "shrink_source", lambda source: replace(SHRINK_ONCE(source), name=source.name))
        yield
