"""Hooks on the blocks of a model that measure each forward and keep nothing of it but sums.

States are copied as the blocks take them (a forward may write into them later), compared at the end of the forward and
let go. What a forward gave waits until `settle` says at which share of the noise range it was.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from surgery.activations.accumulate import Accumulator, MeasuredForward
from surgery.activations.branches import TokenWeights, weigh_tokens
from surgery.activations.output_sums import Weigh
from surgery.activations.row_sums import Masks, RowSums, compare_states, exact
from surgery.activations.streams import BlockCall, SeenStream, find_streams, token_arguments
from surgery.activations.token_masks import FindMask, TokenArgument, TokenMasks, no_mask
from surgery.anatomy.anatomy import Anatomy, Component
from surgery.errors import InputError, RefusedError
from surgery.graph.variant import is_variant
from surgery.profiles.layer_profile import Profile
from surgery.profiles.parts import PADDING, TEXT
from surgery.tracing.arguments import parameters_of_module

Token = Literal["all", "last"]
BranchesOfRows = Callable[[int], Sequence[str]]  # rows of a forward -> the branch of each


def one_branch(rows: int) -> Sequence[str]:
    """The branches of a model that is called without classifier-free guidance."""
    return ["conditional"] * rows


@dataclass(eq=False)
class _Stack:
    """What is seen of a stack in the forward at hand; `streams` are known from its second block on."""

    name: str
    num_blocks: int
    streams: tuple[SeenStream, ...] | None = None
    states: list[dict[str, torch.Tensor]] = field(default_factory=list)
    calls: list[BlockCall] = field(default_factory=list)
    scout: RemovableHandle | None = None  # the hook that sees what the first block returns, until `streams` are known
    masks: TokenMasks = field(default_factory=TokenMasks)
    watch: ExitStack = field(default_factory=ExitStack)  # what is watched while the first block runs
    weigh: dict[str, Weigh] = field(default_factory=dict)  # by stream: which tokens of a component's output count

    def keep(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy a state, by stream."""
        self.states.append({name: _without_gradient(value).clone() for name, value in state.items()})

    def forget(self) -> None:
        """Let go of the forward at hand, and watch no more (where it was interrupted, no hook has said so)."""
        self.states, self.calls = [], []
        self.watch.close()

    def call_off(self) -> None:
        """Take the scout out."""
        if self.scout is not None:
            self.scout.remove()
            self.scout = None


class Recorder:
    """Measures the forwards of a model while it is entered (`with recorder:`).

    `token` says over which tokens angles are averaged: all, or only the last of each sample. `components` chooses among
    the components of blocks; by default those with weights that are not within another one. `keep_means` keeps one mean
    state a layer and sample while a trajectory lasts; `on_means` is told their size in bytes before the first is kept.
    `branches_of_rows` and `find_mask` may be set by whoever calls the model. A forward that fails is not counted, but
    for those outputs of components that had been summed by then, as large ones are at once; nor are forwards that were
    not settled when an error left the recorder.

    Raises:
        RefusedError: the model is a variant, or has no stack whose blocks run in their order.
        InputError: from within the model's forward: a state or an output is not finite; it names the layer.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        *,
        num_bins: int = 10,
        token: Token = "all",
        components: Callable[[Component], bool] | None = None,
        keep_means: bool = False,
    ) -> None:
        self.model = model
        self.anatomy = anatomy
        self.token = token
        self.branches_of_rows: BranchesOfRows = one_branch
        self.find_mask: FindMask = no_mask
        self.on_means: Callable[[int], None] = lambda size: None  # noqa: ARG005  (nobody is told)
        self._has_told = False
        self.sums = Accumulator(num_bins, keep_means=keep_means)
        self._wanted = components
        self._stacks = {s.name: _Stack(s.name, s.num_blocks) for s in anatomy.stacks if s.refusal is None}
        self._picture = parameters_of_module(model)[0]
        self._arguments: dict[str, Any] = {}
        self._weights: dict[Any, TokenWeights] = {}  # of the forward at hand
        self._pending: list[MeasuredForward] = []
        self._handles: list[RemovableHandle] = []
        if is_variant(model):
            raise RefusedError(
                "this model is a variant, whose layers run in another order; measure the original, or the checkpoint "
                "that `surgery compile SPEC --to checkpoint` writes"
            )
        if not self._stacks:
            reasons = "; ".join(f"{s.name}: {s.refusal}" for s in anatomy.stacks)
            raise RefusedError(f"{anatomy.class_name} has no stack that can be measured: {reasons}")

    def __enter__(self) -> "Recorder":
        self._handles.append(self.model.register_forward_pre_hook(self._start_hook(), with_kwargs=True))
        for stack in self._stacks.values():
            for index, block in enumerate(self.model.get_submodule(stack.name).children()):
                self._hook_block(stack, index, block)
        self._handles.append(self.model.register_forward_hook(self._finish))
        return self

    def _hook_block(self, stack: _Stack, index: int, block: nn.Module) -> None:
        keep = self._handles.append
        keep(block.register_forward_pre_hook(self._enter_hook(stack, block), with_kwargs=True))
        if index == 0 and stack.streams is None:  # called even where the block fails: nobody is left watching
            stack.scout = block.register_forward_hook(self._scout_hook(stack), always_call=True)
        if index == stack.num_blocks - 1:
            keep(block.register_forward_hook(self._end_hook(stack)))
        for component in self._components_of(stack.name, index):
            place = f"{stack.name}.{index}.{component.name}"
            hook = self._output_hook(stack, place, component)
            keep(block.get_submodule(component.name).register_forward_hook(hook))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for stack in self._stacks.values():
            stack.call_off()
        self._forget()
        self.sums.outputs.release()
        if kind is not None:
            self._pending.clear()
            self.sums.drop_trajectory()

    def settle(self, share: float | Sequence[float]) -> None:
        """Count the forwards since the last call: they were at this share of the noise range (0 clean, 1 pure noise).

        Several shares are those of the rows.
        """
        for measured in self._pending:
            self.sums.add(measured, share)
        self._pending.clear()

    def finish_trajectory(self) -> None:
        """The samples of the last forwards are done: the next are others."""
        self.sums.finish_trajectory()

    def restart(self) -> None:
        """Count from nothing again; what is known of the model's streams stays known."""
        self.sums = Accumulator(self.sums.num_bins, keep_means=self.sums.keep_means)

    def profile(self, recipe: Mapping[str, Any]) -> Profile:
        """What was counted until now."""
        return self.sums.profile(recipe, {stack.name: stack.num_blocks for stack in self._stacks.values()})

    def _components_of(self, stack: str, index: int) -> list[Component]:
        described = self.anatomy.find_stack(stack)
        assert described is not None, "the stacks are those of the anatomy"
        found = [component for component in described.kind(index).components if component.outputs]
        if self._wanted is not None:
            return [component for component in found if self._wanted(component)]
        found = [component for component in found if component.num_parameters]
        names = [component.name for component in found]
        return [c for c in found if not any(c.name.startswith(f"{name}.") for name in names)]

    def _start_hook(self) -> Callable[..., None]:
        names = parameters_of_module(self.model)

        def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001  (torch's)
            self._forget()
            self.sums.outputs.drop_waiting()
            self._arguments = {**dict(zip(names, args, strict=False)), **kwargs}

        return start

    def _enter_hook(self, stack: _Stack, block: nn.Module) -> Callable[..., None]:
        names = parameters_of_module(block)
        positions = {name: position for position, name in enumerate(names)}

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001  (torch's)
            if stack.streams is not None and stack.states:  # as quick as can be: it runs amid the layers
                stack.keep(
                    {
                        stream.name: kwargs[stream.name] if stream.name in kwargs else args[positions[stream.name]]
                        for stream in stack.streams
                    }
                )
                return
            found = token_arguments({**dict(zip(names, args, strict=False)), **kwargs})
            if not stack.states:
                stack.masks.begin(found, self._find_mask)
                if stack.streams is None:
                    stack.watch.enter_context(stack.masks.watching(found))
            if stack.streams is None:
                stack.calls.append(BlockCall(found, None))
                if len(stack.calls) > 1:  # the second block's arguments tell; no more calls are held on to
                    stack.streams = self._see_streams(stack)
            kept = found if stack.streams is None else [stream.name for stream in stack.streams]
            stack.keep({name: found[name] for name in kept})

        return enter

    def _scout_hook(self, stack: _Stack) -> Callable[..., None]:
        def scout(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001  (torch's)
            stack.watch.close()
            if stack.calls:
                stack.calls[-1] = BlockCall(stack.calls[-1].arguments, output)

        return scout

    def _end_hook(self, stack: _Stack) -> Callable[..., None]:
        def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001  (torch's)
            if stack.streams is None:  # its only block
                stack.streams = self._see_streams(stack)
            ends = {stream.name: stream.find(output) for stream in stack.streams}
            stack.keep({name: value for name, value in ends.items() if value is not None})

        return end

    def _see_streams(self, stack: _Stack) -> tuple[SeenStream, ...]:
        streams = find_streams(stack.calls)
        stack.calls = []
        stack.call_off()
        if not streams:
            raise RefusedError(
                f"no stream of {self.anatomy.class_name}'s {stack.name} is of (batch, tokens, channels); it can't be "
                "measured"
            )
        return streams

    def _output_hook(self, stack: _Stack, place: str, component: Component) -> Callable[..., None]:
        outputs = self.sums.outputs
        for described in component.outputs:
            stack.weigh.setdefault(described.stream, functools.partial(self._weigh, stack, described.stream))
        keys = [
            ((place, described.stream), stack.weigh[described.stream], described.channel_dim)
            for described in component.outputs
        ]
        is_tuple = component.returns_tuple

        def measure(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001  (torch's)
            for (key, weigh, dim), value in zip(keys, output if is_tuple else (output,), strict=False):
                tokens = value if dim == -1 else value.flatten(2).transpose(1, 2)  # (rows, places, channels)
                outputs.add(key, _without_gradient(tokens), weigh)

        return measure

    def _weigh(self, stack: _Stack, stream: str, value: torch.Tensor) -> TokenWeights:
        key = (stack.name, stream, value.shape[:2], value.device)
        if key not in self._weights:
            mask = stack.masks.of_output(stream, value.shape[:2])
            self._weights[key] = weigh_tokens(self.branches_of_rows(len(value)), value, mask)
        return self._weights[key]

    def _find_mask(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Of an argument of a stack's first block, be it a stream or context: components may compute on its tokens."""
        is_picture = name == self._picture
        return self.find_mask(
            TokenArgument(self._arguments, self.branches_of_rows(len(value)), name, tuple(value.shape), is_picture)
        )

    def _finish(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG002  (torch's)
        states = {
            (stack, stream.name): [state[stream.name] for state in stack.states if stream.name in state]
            for stack in self._stacks.values()
            for stream in stack.streams or ()
        }
        streams: dict[tuple[str, str], dict[str, RowSums]] = {}
        branches: Sequence[str] = ()
        if self.sums.keep_means and not self._has_told:
            self.on_means(8 * sum(len(found) * found[0].numel() for found in states.values()))
            self._has_told = True
        for (stack, stream), found in states.items():
            branches = self.branches_of_rows(len(found[0]))
            mask = stack.masks.known.get(stream)
            masks: Masks = {} if mask is None else {TEXT: mask, PADDING: ~mask}
            try:
                sums = compare_states(found, masks, last_token=self.token == "last")
            except FloatingPointError:
                raise InputError(f"{_first_nonfinite(states)} is no longer finite numbers{self._at()}") from None
            streams[stack.name, stream] = sums
            if self.sums.keep_means:
                self.sums.add_states(stack.name, stream, found, branches)
        self.sums.outputs.count_waiting()
        self._pending.append(MeasuredForward(streams, branches))
        self._forget()

    def _at(self) -> str:
        """Where in a trajectory the forward at hand is, as far as its arguments say."""
        time = self._arguments.get("timestep", self._arguments.get("t"))
        if isinstance(time, torch.Tensor) and time.numel():
            return f", at timestep {float(time.flatten()[0]):g}"
        return ""

    def _forget(self) -> None:
        self._arguments, self._weights = {}, {}
        for stack in self._stacks.values():
            stack.forget()


def _without_gradient(value: torch.Tensor) -> torch.Tensor:
    """The value, detached where it is not (in a pipeline it is: no call is needed amid its layers)."""
    return value.detach() if value.requires_grad else value


def _first_nonfinite(states: Mapping[tuple[_Stack, str], Sequence[torch.Tensor]]) -> str:
    """Which of all streams' states is the first that is no finite numbers, by the layer where it is."""
    stacks = list(dict.fromkeys(stack for stack, _ in states))
    places = [
        (stacks.index(stack), number, stream)
        for (stack, stream), found in states.items()
        for number, state in enumerate(found)
        if not exact(state).square().sum().isfinite()
    ]
    position, number, stream = min(places)
    stack = stacks[position]
    is_end = number == stack.num_blocks
    return f"the stream {stream} that " + (
        f"leaves {stack.name}[{number - 1}]" if is_end else f"enters {stack.name}[{number}]"
    )
