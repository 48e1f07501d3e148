"""The slow, obvious way: every activation of every forward is kept, and each number is computed from all of them."""

import inspect
import math
from collections import defaultdict

import numpy as np
import torch


class KeptActivations:
    """All states of all blocks and all outputs of some components, of each forward, on float64 copies."""

    def __init__(self, model, anatomy, components):
        self.forwards = []
        self.handles = [model.register_forward_pre_hook(self.start)]
        for stack in anatomy.stacks:
            for index, block in enumerate(model.get_submodule(stack.name)):
                self.handles.append(
                    block.register_forward_pre_hook(self.enter(stack.name, stack.streams), with_kwargs=True)
                )
                if index == stack.num_blocks - 1:
                    self.handles.append(block.register_forward_hook(self.leave(stack.name, stack.streams)))
        for path in components:
            self.handles.append(model.get_submodule(path).register_forward_hook(self.output(path)))

    def start(self, _module, _args):
        self.forwards.append({"states": defaultdict(list), "outputs": {}})

    def enter(self, stack, streams):
        def hook(block, args, kwargs):
            bound = inspect.signature(inspect.unwrap(type(block).forward)).bind(block, *args, **kwargs).arguments
            for stream in streams:
                self.forwards[-1]["states"][stack, stream].append(bound[stream].double().clone())

        return hook

    def leave(self, stack, streams):
        def hook(_block, _args, output):
            outputs = [output] if isinstance(output, torch.Tensor) else list(output)
            for stream in streams:
                states = self.forwards[-1]["states"][stack, stream]
                same = [value for value in outputs if value is not None and value.shape == states[0].shape]
                if len(same) == 1:  # the tiny models' streams differ in their numbers of tokens
                    states.append(same[0].double().clone())

        return hook

    def output(self, path):
        def hook(_module, _args, output):
            values = output if isinstance(output, tuple) else (output,)
            self.forwards[-1]["outputs"][path] = [value.double().clone() for value in values]

        return hook

    def remove(self):
        for handle in self.handles:
            handle.remove()


def cosine(a, b):
    a, b = a.flatten().numpy(), b.flatten().numpy()
    return float(np.dot(a, b) / (math.sqrt(np.dot(a, a)) * math.sqrt(np.dot(b, b))))


def compare(states, mask, *, last):
    """Of one row: the flat cosine, the sums over tokens of cosine and angle, and of relative residuals."""
    number = len(states)
    chosen = [token for token in range(len(states[0])) if mask is None or mask[token]]
    flat, tokens, angles = (np.zeros((number, number)) for _ in range(3))
    residual = np.zeros(number - 1)
    for a in range(number):
        for b in range(number):
            flat[a, b] = cosine(states[a][chosen], states[b][chosen])
            cosines = [cosine(states[a][t], states[b][t]) for t in chosen]
            tokens[a, b] = sum(cosines)
            kept = cosines[-1:] if last else cosines
            angles[a, b] = sum(math.acos(min(1.0, max(-1.0, value))) / math.pi for value in kept)
    for a in range(number - 1):
        residual[a] = sum(float((states[a + 1][t] - states[a][t]).norm() / states[a][t].norm()) for t in chosen)
    return flat, tokens, angles, residual, len(chosen)
