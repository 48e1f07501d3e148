"""The blocks that a plan never runs: taken out of a variant, and stood in for where its class's forward is traced."""

import torch
from torch import nn

from surgery.graph.checkpointing import mark_checkpointed_calls_
from surgery.plan.plan import Plan
from surgery.tracing.clone import bare_clone, share_tensor, without_memory


class RemovedBlocks:
    """Shapes of the blocks of `model` that all of some plans remove, and how the class's own model is made again.

    `is_held` says that the variant still holds them: until a first graph tells which of their weights it reads.
    """

    def __init__(self, model: nn.Module, plans: tuple[Plan, ...]) -> None:
        self.num_blocks = {schedule.stack: schedule.num_blocks for plan in plans for schedule in plan.schedules}
        self.original_class = type(model)
        self.weights_dtype = next((value.dtype for value in model.parameters()), None)
        self.is_held = True
        self.blocks = {
            f"{stack}.{index}": bare_clone(model.get_submodule(f"{stack}.{index}"), without_memory)
            for stack in self.num_blocks
            for index in _removed_by_all(plans, stack)
        }

    def take_out(self, variant: nn.Module, named: frozenset[str]) -> None:
        """Take them out of the stacks of a variant, once; the other blocks keep their names.

        What a graph names (`named`) inside a removed block stays, alone: DiT reads its first block's embedding.
        """
        if not self.is_held:
            return
        self.is_held = False
        for path in self.blocks:
            stack, _, index = path.rpartition(".")
            block = variant.get_submodule(path)
            kept = [name.removeprefix(f"{path}.") for name in named if name.startswith(f"{path}.")]
            delattr(variant.get_submodule(stack), index)
            if kept:
                variant.get_submodule(stack).add_module(index, _only(block, kept))

    def whole_model(self, variant: nn.Module, device: torch.device, computes_in: torch.dtype) -> nn.Module:
        """The variant with stand-ins for its removed blocks: what the original class's forward expects.

        Parameters are stood in for as well, on `device`, where the call is: nothing reads their contents, and where
        tensors are fake a new one costs far less than a copy of a real one; on the meta device sharing costs less
        still. Those of a dtype that weights are only stored in (8 bits, which hooks cast before a layer runs) are of
        the dtype that the call `computes_in`.
        """
        weight = next(variant.parameters(), None)

        def stand_in(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            dtype = computes_in if dtype.is_floating_point and dtype.itemsize == 1 else dtype
            made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)
            needs_gradient = tensor.requires_grad and dtype.is_floating_point
            return nn.Parameter(made, needs_gradient) if isinstance(tensor, nn.Parameter) else made

        def with_present_type(tensor: torch.Tensor) -> torch.Tensor:
            if weight is not None and tensor.dtype == self.weights_dtype:
                return stand_in(tensor, weight.dtype)
            return stand_in(tensor, tensor.dtype)

        def on_device(tensor: torch.Tensor) -> torch.Tensor:
            is_parameter = type(tensor) is nn.Parameter
            is_shared = tensor.device == device and (not is_parameter or (tensor.is_meta and tensor.itemsize > 1))
            return share_tensor(tensor) if is_shared else stand_in(tensor, tensor.dtype)

        whole = bare_clone(variant, on_device)
        whole.__class__ = self.original_class
        for name, num_blocks in self.num_blocks.items():
            stack = whole.get_submodule(name)
            for index in range(num_blocks):
                removed = self.blocks.get(f"{name}.{index}")
                block = stack.get_submodule(str(index)) if removed is None else bare_clone(removed, with_present_type)
                _put_last(stack, str(index), block)
        mark_checkpointed_calls_(whole)
        return whole


def _removed_by_all(plans: tuple[Plan, ...], stack: str) -> list[int]:
    """The blocks of a stack that none of the plans runs, ascending."""
    named = ([schedule for schedule in plan.schedules if schedule.stack == stack] for plan in plans)
    removed = [{index for schedule in found for index in schedule.removed} for found in named]
    return sorted(set.intersection(*removed))


def _put_last(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Make a module the last child of another, in the place of a child of this name if there is one."""
    if hasattr(parent, name):
        delattr(parent, name)
    parent.add_module(name, child)


def _only(block: nn.Module, paths: list[str]) -> nn.Module:
    """A bare module with these submodules and weights of `block` under their names."""
    bare = nn.Module()
    bare.training = block.training
    for path in paths:
        *parents, last = path.split(".")
        here = bare
        for parent in parents:
            if not hasattr(here, parent):
                here.add_module(parent, nn.Module())
            here = here.get_submodule(parent)
        owner = block.get_submodule(".".join(parents))
        value = getattr(owner, last)
        if isinstance(value, nn.Module):
            here.add_module(last, value)
        elif isinstance(value, nn.Parameter):
            here.register_parameter(last, value)
        else:
            here.register_buffer(last, value)
    return bare
