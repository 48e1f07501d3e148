"""The forms of the language as data: keys, fields, bounds and what they mean. The reader and the schema both use it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from surgery.spec.limits import MAX_TIMES
from surgery.spec.operations import BRANCHES, COMBINE_KINDS, REPLACEMENT_KINDS

VERSION = "v1"


class Field(NamedTuple):
    """One field of an operation.

    `kind` is what it holds: layers, component, count (an integer of `minimum` to `maximum`), number, choice (one of
    `choices`), using, stack, order, window, steps.
    """

    kind: str
    meaning: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: int = 1
    maximum: int | None = None


class Form(NamedTuple):
    """One operation: what it does, its fields by name, and the field that a selector without a mapping stands for."""

    meaning: str
    fields: Mapping[str, Field]
    bare: str | None = None
    example: str = ""


LAYERS = Field("layers", "The layers: a selector, or a list of them.", required=True)
COMBINE = Field("choice", "mean averages the outputs, sum adds the residual updates.", False, "mean", COMBINE_KINDS)
LOOPS = Field("count", "How often the group runs in all, fed its own result.", default=1, maximum=MAX_TIMES)

OPERATIONS: Mapping[str, Form] = {
    "skip": Form(
        "Leave the selected blocks out; the streams pass by unchanged.",
        {"layers": LAYERS},
        bare="layers",
        example='"transformer_blocks[7, 9:12]"',
    ),
    "repeat": Form(
        "Run the selection several times in a row (times), or one layer in every position of it (using).",
        {
            "layers": LAYERS,
            "times": Field("count", "How often the run of layers is executed.", maximum=MAX_TIMES),
            "using": Field("using", "The layer that runs in every position: its index, or center."),
        },
        example='{layers: "transformer_blocks[4:9]", using: center}',
    ),
    "reverse": Form(
        "Run the layers of the selected positions in reverse order.",
        {"layers": LAYERS},
        bare="layers",
        example='"transformer_blocks[4:9]"',
    ),
    "shuffle": Form(
        "Run the layers of the selected positions in the order of Python's random.Random(seed).shuffle.",
        {"layers": LAYERS, "seed": Field("count", "The seed of the order.", default=0, minimum=0)},
        bare="layers",
        example='{layers: "transformer_blocks[4:9]", seed: 0}',
    ),
    "order": Form(
        "Write the whole schedule of a stack out; must be the first operation on that stack's schedule.",
        {
            "stack": Field("stack", "The name of the stack.", required=True),
            "as": Field("order", 'What runs: layers, ranges like "5:9", parallel groups.', required=True),
        },
        example='{stack: transformer_blocks, as: ["0:4", 5, 4, {parallel: [6, 7], loops: 2}, "8:12"]}',
    ),
    "parallel": Form(
        "Give all selected layers, a run of neighbours, the same input and combine their outputs.",
        {"layers": LAYERS, "combine": COMBINE, "loops": LOOPS},
        bare="layers",
        example='{layers: "transformer_blocks[4:9]", loops: 3}',
    ),
    "scale": Form(
        "Multiply the residual update of the selected blocks: x' = x + by (f(x) - x).",
        {"layers": LAYERS, "by": Field("number", "The factor of the residual update.", required=True)},
        example='{layers: "transformer_blocks[4:9]", by: 0.5}',
    ),
    "replace": Form(
        "Replace the output of the selected components, before any gate and before the residual add.",
        {
            "component": Field(
                "component", 'The components, like "transformer_blocks[2:5].attn1", or a list.', required=True
            ),
            "with": Field(
                "choice",
                "zero; input (the component's own input); channel_mean (the mean of its input over channels); mean (a "
                "calibrated vector, from a profile).",
                required=True,
                choices=REPLACEMENT_KINDS,
            ),
        },
        example='{component: "transformer_blocks[2:5].attn1", with: zero}',
    ),
}

SYNONYMS: Mapping[str, str] = {  # what other programs and papers call an operation
    **dict.fromkeys(("drop", "remove", "delete", "prune", "omit", "cut", "exclude"), "skip"),
    **dict.fromkeys(("duplicate", "loop", "copy"), "repeat"),
    **dict.fromkeys(("reorder", "permute"), "order"),
    **dict.fromkeys(("flip", "invert"), "reverse"),
    **dict.fromkeys(("ablate", "zero", "substitute"), "replace"),
    **dict.fromkeys(("multiply", "weight", "scale_by"), "scale"),
}

ORDER_GROUP: Mapping[str, Field] = {
    "parallel": Field("indices", "The layers of the group.", required=True),
    "combine": COMBINE,
    "loops": LOOPS,
}

BESIDE: Mapping[str, Field] = {
    "expect": Field("count", "How many layers (components, for replace) the operation must match."),
    "when": Field("when", "When the operation applies; without it, always."),
}

WHEN: Mapping[str, Field] = {
    "timesteps": Field("window", "A share of the noise range, like [0.0, 0.3]: 0 is clean, 1 is pure noise."),
    "steps": Field("steps", 'Steps of the sampler, from 0: "0:5", or a list; for pipelines.'),
    "branch": Field("choice", "A branch of classifier-free guidance.", choices=BRANCHES),
}

KEYS: Mapping[str, str] = {
    "surgery": "The version of the language.",
    "model": "The model: a hub id, a folder, or demo. --model overrides it.",
    "title": "What the spec is for, in a line.",
    "profile": "A safetensors file of calibrated means, relative to the spec. --profile overrides it.",
    "groups": "Names for selections, used where a selector is.",
    "vary": "The variables of a sweep; {name} stands for a value.",
    "cumulative": "The variable along which operations add up, from its first value; or {over: s, order: backward}.",
    "average": "Variables, like [seed], over whose values the rows of an evaluation are averaged.",
    "operations": "The operations, applied in order.",
}
CUMULATIVE: Mapping[str, str] = {
    "over": "The variable along which operations add up.",
    "order": "forward (as its values are written), backward, or a file relative to the spec: a profile (least Block "
    "Influence first; profile.safetensors#STACK where it has several), or an evaluation (least damage first).",
}
REQUIRED_KEYS = ("surgery", "operations")
