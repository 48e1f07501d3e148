"""What a file's header says besides its tensors -> what of it holds for the file that is made from it.

Hashes of the file's own contents (`modelspec.hash_sha256` of https://github.com/Stability-AI/ModelSpec,
`sshs_model_hash` of kohya's trainers) are of other contents now, and are left out; what is by layer follows the layers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from surgery.anatomy.tensor_files import Weights
from surgery.checkpoint.adapter_metadata import PEFT_KEY
from surgery.checkpoint.layer_names import LayerNames
from surgery.errors import RefusedError

OWN_HASH = re.compile(
    r"(?:(?:modelspec|sshs|model|legacy|file|content|contents|weights|tensor|tensors|data|self)[._-])*"
    r"(?:hash|sha\d+|md5|crc32|checksum|blake\w+|autov\d)(?:[._-](?:hash|sha\d+|md5|crc32|checksum|blake\w+))*",
    re.IGNORECASE,
)
HISTORY = ("ss_", "modelspec.", "surgery")  # how a trainer was called, what people wrote, how it was made


@dataclass(frozen=True)
class KeptMetadata:
    """The metadata that holds for the new file; `stale` are the keys of the hashes that were left out."""

    kept: Mapping[str, str]
    stale: tuple[str, ...] = ()


def join_metadata(weights: Weights) -> dict[str, str]:
    """What the headers of all shards say.

    Raises:
        RefusedError: two say different things in one entry, which may be of the tensors of each.
    """
    joined: dict[str, str] = {}
    for file in weights.files:
        for key, text in file.metadata.items():
            if joined.setdefault(key, text) != text and not OWN_HASH.fullmatch(key):
                raise RefusedError(
                    f"the header of {file.path} says another thing of {key!r} than the shards before it; save the "
                    "model with one header for all"
                )
    return joined


def keep_metadata(metadata: Mapping[str, str], orders: Mapping[str, Sequence[int]]) -> KeptMetadata:
    """What of a header holds once layers have moved.

    `orders` are the layers of each stack in their new order.

    Raises:
        RefusedError: an entry names layers in a way that can't follow them.
    """
    stale = tuple(key for key in metadata if OWN_HASH.fullmatch(key))
    names = LayerNames(orders)
    kept: dict[str, str] = {}
    for key, text in metadata.items():
        if key not in stale:
            kept |= {key: text} if key == PEFT_KEY or key.startswith(HISTORY) else _follow(key, text, names)
    return KeptMetadata(kept, stale)


def _follow(key: str, text: str, names: LayerNames) -> dict[str, str]:
    is_json = True
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data, is_json = text, False
    try:
        moved = names.follow({key: data})
    except RefusedError as error:
        raise RefusedError(f"the header's {key!r} is by layer: {error}; save the file without it") from None
    except RecursionError:
        raise RefusedError(f"the header's {key!r} is nested too deeply to be read; save the file without it") from None
    if moved == {key: data}:
        return {key: text}
    return {name: json.dumps(value) if is_json else value for name, value in moved.items()}
