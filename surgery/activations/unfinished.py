"""The sums of a run that is not finished <-> a file, to the bit: a run that goes on from it ends as if undisturbed.

safetensors of float64: `stream/I/ARRAY` of stream number I, and `bank/I/ARRAY` of the sums of components' outputs. The
header, JSON, says what they are of, under which request, and which samples were counted.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from surgery.activations.accumulate import Accumulator
from surgery.activations.output_sums import SavedBank
from surgery.damage import read_arrays, told_as
from surgery.errors import InputError
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
            header, tensors = read_arrays(self.path, KEY, f"{self.path}")
            with told_as(f"{self.path} is damaged"):
                if (header["format"], header["request"]) != (FORMAT, self.key):
                    return []
                streams = {tuple(key): _stream(tensors, number) for number, key in enumerate(header["streams"])}
                banks = [_bank(tensors, number, *said) for number, said in enumerate(header["banks"])]
                samples = [str(name) for name in header["samples"]]
        except InputError:
            self._put_aside()
            return []
        sums.streams = streams
        sums.outputs.restore(banks)
        return samples

    def _put_aside(self) -> None:
        """A file that can't be read is not written over: it may hold the sums of hours."""
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))


def _stream(tensors: Mapping[str, Any], number: int) -> StreamSums:
    return StreamSums(*(tensors[f"stream/{number}/{f.name}"].copy() for f in fields(StreamSums)))


def _bank(tensors: Mapping[str, Any], number: int, branches: Any, device: str, outputs: Any) -> SavedBank:
    arrays = {name: tensors[f"bank/{number}/{name}"] for name in ("counts", "shift", "total", "squares")}
    return SavedBank(tuple(branches), device, tuple((name, stream) for name, stream in outputs), arrays)
