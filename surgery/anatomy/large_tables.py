"""Tables that constructors compute, like positions of 192 x 192 patches, without the memory and the time they take."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MAX_VALUES = 2**22  # of a tensor that is computed


class LargeTablesOnMeta(TorchFunctionMode):
    """Within it a larger tensor goes to the meta device, and all that is computed from it stays there.

    What is made of its values (`.item()`, a choice) raises, as everywhere on that device.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() > MAX_VALUES and not result.is_meta:
            return result.to("meta")
        return result
