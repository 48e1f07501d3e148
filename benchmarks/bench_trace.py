"""How long it takes to trace and rewrite a 57-block Flux on the meta device, imports apart. Aim: under 1.5 s.

Beside it, what has to be done anyway: building the model on the meta device.
"""

import diffusers
import torch
from accelerate import init_empty_weights
from pairs import median_seconds

from surgery.anatomy.from_model import read_anatomy
from surgery.calls.example_inputs import example_call
from surgery.graph.rewrite import rewrite_graph
from surgery.graph.variant import build_variant
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec
from surgery.tracing.arguments import flatten_call, parameters_of
from surgery.tracing.clone import bare_clone, clone_module, without_memory
from surgery.tracing.tracer import trace_forward
from surgery.tracing.wrappers import innermost

SPEC = """
surgery: v1
operations:
  - skip: transformer_blocks[7, 9:12]
  - reverse: single_transformer_blocks[10:20]
  - parallel: {layers: "single_transformer_blocks[20:30]", loops: 3}
"""


def build_flux() -> torch.nn.Module:
    """FLUX.1-schnell's transformer (19 + 38 blocks, 11.9 B parameters) without memory."""
    with init_empty_weights():
        model = diffusers.FluxTransformer2DModel(guidance_embeds=False)
    return clone_module(model.eval(), without_memory)


def main() -> None:
    """Print the seconds of each stage and their ratios to building the model."""
    model = build_flux()
    anatomy = read_anatomy(model)
    plan = lower_spec(read_spec(SPEC), anatomy)
    forward = innermost(type(model).forward)
    example = example_call(model)
    assert example is not None
    call = flatten_call((), example.kwargs, parameters_of(forward))
    schedules = {schedule.stack: schedule for schedule in plan.schedules}

    def trace_and_rewrite() -> None:
        with torch.no_grad():
            traced = trace_forward(lambda: bare_clone(model), call, forward)
        rewrite_graph(traced.graph, traced.model, schedules)

    seconds = median_seconds(
        {
            "build the model on the meta device": build_flux,
            "trace and rewrite": trace_and_rewrite,
            "anatomy": lambda: read_anatomy(model),
            "variant (trace, rewrite, compile, clone)": lambda: build_variant(model, plan, anatomy),
        },
        rounds=5,
    )
    base = seconds["build the model on the meta device"]
    for name, taken in seconds.items():
        print(f"{name:42} {taken:6.2f} s   {taken / base:5.2f} x building")


if __name__ == "__main__":
    main()
