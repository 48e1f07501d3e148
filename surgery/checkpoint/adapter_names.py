"""Names of an adapter's tensors -> which module of the original they are for, however the name is spelled.

Trainers write `transformer.transformer_blocks.3.attn.to_q.lora_A.weight` (PEFT, diffusers),
`lora_transformer_transformer_blocks_3_attn_to_q.lora_down.weight` (kohya) or
`lycoris_transformer_blocks_3_attn_to_q.lokr_w1` (LyCORIS). A name with underscores is looked up among the real names of
the class, with their dots written as underscores. Names of the authors' own layout say only which layer they are of.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from surgery.anatomy.authors_layout import SPELLINGS
from surgery.errors import InputError

DOTTED_PREFIXES = (
    *("", "transformer.", "base_model.model.", "base_model.model.transformer."),
    *("diffusion_model.", "model.diffusion_model.", "unet."),  # the last as trainers of U-Nets write for all models
)
JOINED_PREFIXES = ("", "lora_", "lycoris_", "lora_transformer_", "lycoris_transformer_", "lora_unet_")
SPEAKS_OF_TRANSFORMER = re.compile(r"(model\.)?(lora_|lycoris_)?(transformer|unet|diffusion_model)[._]")
NUMBERED = re.compile(r"(block|layer)s?[._][0-9]+[._]")
MAX_SAID = 120
PART = re.compile(
    r"(?P<module>.+?)\.(?P<leaf>lora[_.](?:A|B|up|down|mid)(?:\.[^.]+)?\.(?:weight|bias)"
    r"|lora_embedding_[AB](?:\.[^.]+)?|lora_magnitude_vector(?:\.[^.]+)*|[^.]+)"
)


@dataclass(frozen=True)
class OfModule:
    """A tensor of a module that the class has: what stands before the module's name, and which leaf of the adapter."""

    prefix: str
    module: str
    leaf: str
    is_joined: bool  # the module's name is written with underscores

    def name_for(self, module: str) -> str:
        """The name of the same leaf for another module."""
        written = module.replace(".", "_") if self.is_joined else module
        return f"{self.prefix}{written}.{self.leaf}"


@dataclass(frozen=True)
class OfLayer:
    """A tensor of a layer, for a module that the class has not by that name (the authors' layout, fused modules)."""

    stack: str
    index: int
    before: str
    behind: str

    def name_for(self, position: int) -> str:
        """The name of the same tensor in another layer."""
        return f"{self.before}{position}{self.behind}"


class AdapterNames:
    """What names mean for one class: `shapes` of all its tensors, `stacks` with their numbers of layers."""

    def __init__(self, class_name: str, shapes: Mapping[str, Sequence[int]], stacks: Mapping[str, int]) -> None:
        self.class_name = class_name
        self.shapes = shapes
        self.stacks = stacks
        self.modules = {name.rpartition(".")[0] for name in shapes} - {""}
        self.joined: dict[str, str] = {}
        self.ambiguous: set[str] = set()
        for module in sorted(self.modules):
            joined = module.replace(".", "_")
            if joined in self.joined:
                self.ambiguous.add(joined)
            self.joined[joined] = module
        spelled = {stack: stack for stack in stacks}
        spelled |= {authors: stack for authors, stack in SPELLINGS.items() if stack in stacks}
        self.layers = [(stack, _layer_pattern(spelling)) for spelling, stack in spelled.items()]

    def find(self, name: str) -> OfModule | OfLayer | None:
        """What a name stands for; None for what is not of the model: text encoders, and modules that are unknown.

        Raises:
            InputError: it names a layer that the model does not have, or could be two modules.
        """
        found = self._find_module(name) or self._find_layer(name)
        if found is None and SPEAKS_OF_TRANSFORMER.match(name) and NUMBERED.search(name):
            raise InputError(
                f"{shorten(name)} is of a layer that a {self.class_name} does not have; was it made for it?"
            )
        return found

    def _find_module(self, name: str) -> OfModule | None:
        for prefix, rest in _strip(name, DOTTED_PREFIXES):
            split = PART.fullmatch(rest)
            if split is None:
                continue
            if rest in self.shapes:
                module, _, leaf = rest.rpartition(".")
                return OfModule(prefix, module, leaf, False)
            if split["module"] in self.modules:
                return OfModule(prefix, split["module"], split["leaf"], False)
            head, _, leaf = rest.partition(".")
            for joined_prefix, joined in _strip(head, JOINED_PREFIXES):
                if joined in self.ambiguous:
                    raise InputError(
                        f"{shorten(name)} could be of two modules of a {self.class_name}; write dots in its name"
                    )
                if joined in self.joined:
                    return OfModule(prefix + joined_prefix, self.joined[joined], leaf, True)
        return None

    def _find_layer(self, name: str) -> OfLayer | None:
        for stack, pattern in self.layers:
            for prefix, rest in _strip(name, DOTTED_PREFIXES):
                for joined_prefix, joined in _strip(rest, JOINED_PREFIXES):
                    found = pattern.match(joined)
                    if found is None:
                        continue
                    index, start = int(found[1]), len(prefix + joined_prefix)
                    if index >= self.stacks[stack]:
                        raise InputError(
                            f"{shorten(name)} is of layer {index}, and the {stack} of this {self.class_name} has "
                            f"{self.stacks[stack]}; was it made for another model?"
                        )
                    return OfLayer(stack, index, name[: start + found.start(1)], name[start + found.end(1) :])
        return None


def _layer_pattern(stack: str) -> re.Pattern[str]:
    """Matches what a name of a stack's layer begins with; its group is the number."""
    return re.compile(rf"(?:{re.escape(stack)}\.|{re.escape(stack.replace('.', '_'))}_)([0-9]{{1,9}})(?=[._])")


def shorten(name: str) -> str:
    """A name as messages say it: a file's names can be of any length."""
    return name if len(name) <= MAX_SAID else f"{name[:MAX_SAID]}..."


def _strip(name: str, prefixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each of the prefixes that a name has, and the rest of the name."""
    for prefix in prefixes:
        if name.startswith(prefix):
            yield prefix, name[len(prefix) :]
