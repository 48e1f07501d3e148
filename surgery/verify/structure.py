"""Written files against the stock class on the meta device: nothing missing, unexpected or misshapen."""

from collections.abc import Collection

from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.anatomy.tensor_files import Weights
from surgery.checkpoint.file_layout import learn_original_layout
from surgery.errors import RefusedError


def check_structure(source: ModelSource, weights: Weights, extra: Collection[str] = ()) -> int:
    """Compare the headers of files with the class and the config of their source; returns the number of tensors.

    `extra` are names that may be there beyond the class's. A single file is read through diffusers' converter.

    Raises:
        RefusedError, InputError: a tensor is missing, unexpected or misshapen.
    """
    model = build_on_meta(source)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if source.file is not None:
        learn_original_layout(source.class_name, source.config, weights, shapes)
        return len(shapes)
    stored = {name: tensor.shape for name, (_, tensor) in weights.tensors.items()}
    faults = {
        "missing": [name for name in shapes if name not in stored],
        "unexpected": [name for name in stored if name not in shapes and name not in extra],
        "misshapen": [name for name, shape in shapes.items() if stored.get(name, shape) != shape],
    }
    found = [f"{what}: {', '.join(names[:5])}" for what, names in faults.items() if names]
    if found:
        raise RefusedError(f"the files that were written do not fit {source.class_name}; {'; '.join(found)}")
    return len(shapes)
