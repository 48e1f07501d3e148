"""Windows by hand: a pipeline whose transformer has the ModuleLists of a stack swapped before every call.

Nothing of the package is asked where a call stands: the steps are counted, and each pipeline's layout of guidance is
written down here.
"""

import functools
import random
from dataclasses import dataclass

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

STACKS = {
    "demo": ("transformer_blocks", 12),
    "sd3": ("transformer_blocks", 4),
    "flux": ("single_transformer_blocks", 4),
}
STACKS |= {"auraflow": ("single_transformer_blocks", 4), "dit": ("transformer_blocks", 4)}
STACKS |= dict.fromkeys(("sana", "qwen", "cogvideox", "ltx"), ("transformer_blocks", 4))
STACKS |= {"lumina2": ("layers", 4), "z-image": ("layers", 4), "hunyuan-image": ("single_transformer_blocks", 4)}
STACKS |= {"wan": ("blocks", 4), "wan-pair": ("*/blocks", 3)}
STACKS |= {"wan-picture": ("*/blocks", 3), "wan-tokens": ("blocks", 4), "klein": ("single_transformer_blocks", 4)}
LAYOUTS = {"demo": "uc", "sd3": "uc", "auraflow": "uc", "dit": "cu", "flux": "c"}  # u: half of the rows unconditional
LAYOUTS |= {"sana": "uc", "cogvideox": "uc", "ltx": "uc", "z-image": "cu"}
SEPARATE = ("lumina2", "qwen", "hunyuan-image", "wan", "wan-pair", "wan-picture", "wan-tokens", "klein")
LAYOUTS |= dict.fromkeys(SEPARATE, "c,u")  # two calls in a step
BRANCHES = {"u": "unconditional", "c": "conditional"}


@dataclass(frozen=True)
class Edit:
    """An operation on some layers within a window; None is everywhere."""

    kind: str
    layers: tuple[int, ...]
    timesteps: tuple[float, float] | None
    steps: tuple[int, int] | None
    branch: str | None

    def yaml(self, stack):
        """As an operation of a spec."""
        selector = f'"{stack}[{self.layers[0]}:{self.layers[-1] + 1}]"'
        body = f"{{layers: {selector}, times: 2}}" if self.kind == "repeat" else selector
        parts = []
        if self.timesteps is not None:
            parts.append(f"timesteps: [{self.timesteps[0]}, {self.timesteps[1]}]")
        if self.steps is not None:
            parts.append(f'steps: "{self.steps[0]}:{self.steps[1]}"')
        if self.branch is not None:
            parts.append(f"branch: {self.branch}")
        when = f", when: {{{', '.join(parts)}}}" if parts else ""
        return f"  - {{{self.kind}: {body}{when}}}"

    def holds(self, share, step, branch):
        """Whether a row there is within the window: half open, but for 1."""
        low, high = self.timesteps or (0.0, 1.0)
        in_time = low - 1e-6 <= share and (share < high - 1e-6 or high == 1.0)
        in_steps = self.steps is None or self.steps[0] <= step < self.steps[1]
        return in_time and in_steps and self.branch in (None, branch)

    def apply(self, order):
        """The order of the layers after it."""
        if self.kind == "skip":
            return [layer for layer in order if layer not in self.layers]
        at = [place for place, layer in enumerate(order) if layer in self.layers]
        run = [order[place] for place in at]
        middle = run[::-1] if self.kind == "reverse" else run * 2
        return [*order[: at[0]], *middle, *order[at[-1] + 1 :]]


def random_edits(name, seed):
    """A few edits of layers of their own, each with a window or without."""
    draw = random.Random(seed)
    _, num_layers = STACKS[name]
    first, edits = 1, []
    while first < num_layers - 1:
        size = min(draw.choice((1, 1, 2)), num_layers - 1 - first)
        kind = draw.choice(("skip", "repeat") if size == 1 else ("skip", "repeat", "reverse"))
        low, high = sorted(draw.sample([0.0, 0.2, 0.4, 0.5, 0.7, 0.9, 1.0], 2))
        first_step = draw.choice((0, 1))
        edits.append(
            Edit(
                kind,
                tuple(range(first, first + size)),
                (low, high) if draw.random() < 0.6 else None,
                (first_step, first_step + draw.choice((1, 2))) if draw.random() < 0.3 else None,
                draw.choice(("conditional", "unconditional"))
                if len(LAYOUTS[name]) > 1 and draw.random() < 0.4
                else None,
            )
        )
        first += size
    return edits


def spec_of(name, edits):
    """The text of a spec with these edits."""
    return "\n".join(["surgery: v1", "operations:", *(edit.yaml(STACKS[name][0]) for edit in edits)]) + "\n"


def draw_by_hand(name, pipe, edits, draw, *, calls_a_step=1, first=0):
    """What `draw(pipe)` gives with the stack swapped by hand in each call of the transformer.

    `calls_a_step` are those of the sampler (Heun's are two), `first` is the timestep at which the pipeline begins.
    """
    stack, forwards = STACKS[name][0].removeprefix("*/"), LAYOUTS[name].split(",")
    num_calls = 0

    def swapped(transformer, forward, *args, **kwargs):
        nonlocal num_calls
        letters = forwards[num_calls % len(forwards)]
        step = num_calls // len(forwards)
        num_calls += 1
        scheduler = pipe.scheduler
        share = float(scheduler.timesteps[first + step]) / scheduler.config.num_train_timesteps
        run = functools.partial(_run_in_order, transformer, forward, stack)
        orders = []
        for letter in letters:
            held = [edit for edit in edits if edit.holds(share, step // calls_a_step, BRANCHES[letter])]
            layers = list(range(len(transformer.get_submodule(stack))))
            orders.append(functools.reduce(lambda order, edit: edit.apply(order), held, layers))
        made = Transformer2DModelOutput if kwargs.get("return_dict", True) else lambda sample: (sample,)
        if all(order == orders[0] for order in orders):
            return made(sample=run(orders[0], args, kwargs))
        first_given = next(iter((*args, *kwargs.values())))
        rows, is_listed = len(first_given), isinstance(first_given, list)
        parts = [
            run(order, _cut(args, half, rows, is_listed), _cut(kwargs, half, rows, is_listed))
            for order, half in zip(orders, (slice(0, rows // 2), slice(rows // 2, rows)), strict=True)
        ]
        return made(sample=[row for part in parts for row in part] if is_listed else torch.cat(parts))

    transformers = [pipe.transformer, *filter(None, [getattr(pipe, "transformer_2", None)])]
    for each in transformers:
        each.__dict__["forward"] = functools.wraps(each.forward)(functools.partial(swapped, each, each.forward))
    try:
        return draw(pipe)
    finally:
        for each in transformers:
            del each.__dict__["forward"]


def _run_in_order(transformer, forward, stack, order, args, kwargs):
    """What the forward returns with these blocks in the place of the stack."""
    blocks = transformer.get_submodule(stack)
    setattr(transformer, stack, nn.ModuleList([blocks[layer] for layer in order]))
    try:
        return forward(*args, **kwargs)[0]
    finally:
        setattr(transformer, stack, blocks)


def _cut(value, rows, count, is_listed):
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim and len(value) == count else value
    if is_listed and isinstance(value, list) and len(value) == count:
        return value[rows]
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(item, rows, count, is_listed) for item in value)
    if isinstance(value, dict):
        return {name: _cut(item, rows, count, is_listed) for name, item in value.items()}
    return value
