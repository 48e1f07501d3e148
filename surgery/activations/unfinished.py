"""The sums of a run that is not finished <-> a file, to the bit: a run that goes on from it ends as if undisturbed.

safetensors of float64: `stream/I/ARRAY` of stream number I, and `bank/I/ARRAY` of the sums of components' outputs. The
header, JSON, says what they are of, under which request, and which samples were counted.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from surgery.activations.accumulate import Accumulator
from surgery.activations.output_sums import SavedBank
from surgery.files import write_whole
from surgery.profiles.layer_profile import StreamSums

KEY = "surgery_unfinished"
FORMAT = 1


@dataclass(frozen=True)
class Unfinished:
    """The file of a request's run, by the request's key."""

    path: Path
    key: str

    def write(self, sums: Accumulator, samples: Sequence[str]) -> None:
        """Write all sums, after whole batches, and the names of their samples."""
        banks = sums.outputs.save()
        tensors: dict[str, Any] = {}
        for number, stream in enumerate(sums.streams.values()):
            tensors |= {f"stream/{number}/{f.name}": getattr(stream, f.name) for f in fields(StreamSums)}
        for number, bank in enumerate(banks):
            tensors |= {f"bank/{number}/{name}": array for name, array in bank.arrays.items()}
        header = {
            "format": FORMAT,
            "request": self.key,
            "samples": list(samples),
            "streams": list(sums.streams),
            "banks": [[bank.branches, bank.device, bank.outputs] for bank in banks],
        }
        arrays = {name: np.array(value, order="C") for name, value in tensors.items()}
        write_whole(self.path, save(arrays, metadata={KEY: json.dumps(header)}))

    def resume(self, sums: Accumulator) -> list[str]:
        """Go on from what is there; the names of its samples. None where there is nothing that can be read."""
        try:
            with safe_open(self.path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})[KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            if (header["format"], header["request"]) != (FORMAT, self.key):
                return []
            streams = {
                tuple(key): StreamSums(*(tensors[f"stream/{number}/{f.name}"].copy() for f in fields(StreamSums)))
                for number, key in enumerate(header["streams"])
            }
            banks = [
                SavedBank(
                    tuple(branches),
                    device,
                    tuple((name, stream) for name, stream in outputs),
                    {name: tensors[f"bank/{number}/{name}"] for name in ("counts", "shift", "total", "squares")},
                )
                for number, (branches, device, outputs) in enumerate(header["banks"])
            ]
            samples = [str(name) for name in header["samples"]]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return []
        sums.streams = streams
        sums.outputs.restore(banks)
        return samples
