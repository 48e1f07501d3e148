"""Components whose output is a constant or their own input: what `replace` puts in a component's place."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from surgery.anatomy.anatomy import Anatomy, Component, TokenOutput
from surgery.plan.plan import ReplacedComponent
from surgery.tracing.arguments import parameters_of_module
from surgery.tracing.clone import bare_clone, without_memory

Means = Mapping[str, Mapping[str, torch.Tensor]]  # one vector (channels,) a stream, of components by dotted name


class Replacement(nn.Module, ABC):
    """Stands in for a component: each token-shaped output u = g(h) becomes a function of h alone.

    Shapes: h is (batch, tokens, in_channels), u is (batch, tokens, out_channels); of a picture or a video the channels
    are along `channel_dim`. `parameter_names` are those of the replaced component's forward, so that h is found whether
    it comes by position or by keyword.
    """

    def __init__(self, component: Component, parameter_names: Sequence[str]) -> None:
        super().__init__()
        self.component = component
        self.parameter_names = tuple(parameter_names)
        self._replaced: tuple[nn.Module, ...] = ()  # within a tuple it is no submodule

    def stand_for(self, original: nn.Module) -> Self:
        """Answer what a forward asks a component for beside calling it (its `out_features`) as the original does."""
        self._replaced = (_without_weights(original),)
        return self

    def __getattr__(self, name: str) -> Any:
        """An attribute of its own, or of the component that it stands for, whose weights are gone."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            replaced = self.__dict__.get("_replaced")
            if not replaced or not hasattr(replaced[0], name):
                raise
            return getattr(replaced[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The replaced outputs, in the structure that the component returns."""
        named = {**dict(zip(self.parameter_names, args, strict=False)), **kwargs}
        outputs = tuple(self.replace(output, named[output.stream]) for output in self.component.outputs)
        return outputs if self.component.returns_tuple else outputs[0]

    @abstractmethod
    def replace(self, output: TokenOutput, tokens: torch.Tensor) -> torch.Tensor:
        """u for one stream, from h."""

    def extra_repr(self) -> str:
        return f"{self.component.class_name}, streams {', '.join(o.stream for o in self.component.outputs)}"


class ZeroReplacement(Replacement):
    """u = 0."""

    def replace(self, output: TokenOutput, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.new_zeros(_shape_of(output, tokens))


class InputReplacement(Replacement):
    """u = h."""

    def replace(self, output: TokenOutput, tokens: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (as its siblings)
        return tokens


class ChannelMeanReplacement(Replacement):
    """u = mean of h over its channels, in every channel (what the PixArt ablation study calls mean)."""

    def replace(self, output: TokenOutput, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(dim=output.channel_dim, keepdim=True).expand(_shape_of(output, tokens)).contiguous()


class MeanReplacement(Replacement):
    """u = a calibrated vector of one value a channel, the same for every token."""

    def __init__(self, component: Component, parameter_names: Sequence[str], means: Mapping[str, torch.Tensor]) -> None:
        super().__init__(component, parameter_names)
        for output in component.outputs:
            self.register_buffer(f"mean_{output.stream}", means[output.stream], persistent=False)

    def replace(self, output: TokenOutput, tokens: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = getattr(self, f"mean_{output.stream}")
        ones = [1] * tokens.ndim
        ones[output.channel_dim] = output.out_channels
        return mean.to(tokens).view(ones).expand(_shape_of(output, tokens)).contiguous()


def _shape_of(output: TokenOutput, tokens: torch.Tensor) -> list[int]:
    shape = list(tokens.shape)
    shape[output.channel_dim] = output.out_channels
    return shape


def stand_in_for(replaced: ReplacedComponent, model: nn.Module, anatomy: Anatomy, means: Means) -> Replacement:
    """What a plan puts in the place of a component of a model of this anatomy."""
    component = anatomy.stack(replaced.stack).kind(replaced.index).find_component(replaced.component)
    assert component is not None, "a plan is made for an anatomy"
    original = model.get_submodule(replaced.path)
    stand_in = build_replacement(replaced.kind, component, original, means.get(replaced.path))
    return stand_in.train(original.training)


def build_replacement(
    kind: str, component: Component, original: nn.Module, means: Mapping[str, torch.Tensor] | None = None
) -> Replacement:
    """The stand-in of one kind (`zero`, `input`, `channel_mean`, `mean`) for `original`, on its device and dtype."""
    names = parameters_of_module(original)
    return _stand_in(kind, component, names, means).stand_for(original)


def _without_weights(component: nn.Module) -> nn.Module:
    """A copy without tensors: they would not follow casts and moves of the model, and none may be computed with."""
    copy = bare_clone(component, without_memory)
    for part in copy.modules():
        for name, _ in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            delattr(part, name)
    return copy


def _stand_in(
    kind: str, component: Component, names: Sequence[str], means: Mapping[str, torch.Tensor] | None
) -> Replacement:
    match kind:
        case "zero":
            return ZeroReplacement(component, names)
        case "input":
            return InputReplacement(component, names)
        case "channel_mean":
            return ChannelMeanReplacement(component, names)
        case "mean":
            assert means is not None, "the plan of a mean replacement carries where its values are"
            return MeanReplacement(component, names, means)
        case _:
            raise ValueError(f"{kind!r} is no kind of replacement")
