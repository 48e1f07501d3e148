"""A LoKr plan against the network that LyCORIS builds of its config: modules, factors, parameters, loading again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surgery.errors import InputError
from surgery.export.factors import count_lokr_parameters, split_shape
from surgery.export.lokr_config import LokrPlan
from surgery.export.lycoris_apply import Trained, apply_config, lycoris_version, refuse_invalid_preset

SHOWN = 3


@dataclass(frozen=True)
class Verified:
    """What was found to agree."""

    lycoris: str
    num_modules: int
    num_parameters: int


def verify_lokr(plan: LokrPlan, config: Mapping[str, Any], model: Any, *, published: bool = False) -> Verified:
    """Build the network of a config and compare it with the plan; `published` only builds it, as it is known to fail.

    Raises:
        InputError: LyCORIS is not installed, rejects the preset, or trains something else than was planned.
    """
    if not published:
        refuse_invalid_preset(config)
    trained = apply_config(config, model)
    faults = [] if published else [*compare(plan, trained), *unloadable(plan, model)]
    if faults:
        more = f"\n  and {len(faults) - SHOWN} more" * (len(faults) > SHOWN)
        raise InputError(
            f"LyCORIS {lycoris_version()} trains something else than was planned:\n  "
            + "\n  ".join(faults[:SHOWN])
            + more
        )
    return Verified(lycoris_version(), len(trained), sum(module.num_parameters for module in trained))


def compare(plan: LokrPlan, trained: tuple[Trained, ...]) -> list[str]:
    """Every difference: modules that are missing or too many, factors, and parameter counts by the closed form."""
    found = {module.name: module for module in trained}
    asked = {module.name: (module.shape, factor) for module, factor in plan.asked.items()}
    faults = [f"{name} is not trained" for name in asked if name not in found]
    faults += [f"{name} is trained and was not planned" for name in found if name not in asked]
    for name, (shape, factor) in asked.items():
        if name not in found:
            continue
        module = found[name]
        count = count_lokr_parameters(shape, factor)
        if (module.algo, module.full_matrix, module.factor) != ("lokr", True, factor):
            faults.append(f"{name} has {module.algo} with factor {module.factor}, not a full LoKr with {factor}")
        elif module.split != split_shape(shape, factor):
            faults.append(f"{name} has w1 of shape {module.split}, not {split_shape(shape, factor)}")
        elif module.num_parameters != count:
            faults.append(f"{name} has {module.num_parameters:,} parameters, not {count:,}")
    return faults


def unloadable(plan: LokrPlan, model: Any) -> list[str]:
    """The modules whose saved weights LyCORIS would load into tensors of other shapes. One of each shape is tried."""
    import torch
    from accelerate import init_empty_weights
    from lycoris.modules.lokr import LokrModule

    tried: dict[tuple[tuple[int, ...], int], str] = {}
    for module, factor in plan.asked.items():
        tried.setdefault((module.shape, factor), module.name)
    faults = []
    for (shape, factor), name in tried.items():
        out, into = split_shape(shape, factor)
        w1 = torch.empty(out, into, device="meta")
        w2 = torch.empty(shape[0] // out, shape[1] // into, *shape[2:], device="meta")
        try:
            with init_empty_weights(), torch.no_grad():
                LokrModule.make_module_from_state_dict(
                    "again",
                    model.get_submodule(name),
                    *(w1, None, None, w2, None, None, None, None),
                    torch.tensor(1.0),
                    None,
                )
        except RuntimeError:
            faults.append(f"{name} with factor {factor} can't be loaded again by LyCORIS; choose a smaller factor")
    return faults
