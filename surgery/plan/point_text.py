"""A point of a sweep -> the text of a spec of its own: its operations as they are with the values of the variables."""

from typing import Any

import yaml

from surgery.plan.profile_groups import FoundGroup, self_contained_text
from surgery.spec.document import Entries, Items, Scalar, Value, read_document
from surgery.spec.load import Spec
from surgery.spec.places import Faults

OF_THE_SWEEP = ("vary", "cumulative", "average")


def text_of_spec(spec: Spec, groups: tuple[FoundGroup, ...]) -> str:
    """The text of a spec, or of a point of a sweep, with the layers in place of groups from profiles."""
    text = self_contained_text(spec, groups)
    if spec.written is None:
        return text
    document = read_document(text, Faults(spec.file))
    assert isinstance(document, Entries), "the spec was read before"
    kept = {key.text: _plain(value) for key, value in document.entries if key.text not in OF_THE_SWEEP}
    kept["operations"] = _plain(spec.written)
    written = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return f"# {spec.point_text}, of {spec.stem}\n{written}"


def _plain(value: Value) -> Any:
    match value:
        case Scalar():
            return value.value
        case Items():
            return [_plain(item) for item in value.items]
        case Entries():
            return {key.text: _plain(item) for key, item in value.entries}
