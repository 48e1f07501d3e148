"""What a model is made of, as frozen data: stacks, block kinds, components, streams. No tensors, no torch."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TokenOutput:
    """One token-shaped output of a component.

    `stream` is the name of the component's argument that carries the same tokens; widths are in channels. Those of a
    picture (batch, channels, height, width), or of a video, are along dimension 1 (`channel_dim`): its tokens are all
    its places.
    """

    stream: str
    in_channels: int
    out_channels: int
    channel_dim: int = -1


@dataclass(frozen=True)
class Component:
    """A named submodule of a block. `refusal` says why its output can't be replaced; then `outputs` is empty.

    `returns_tuple` says whether it returns a tuple (of as many tensors as there are outputs); `flops` are those of one
    call at the example sizes (0 where unknown).
    """

    name: str
    class_name: str
    num_parameters: int
    outputs: tuple[TokenOutput, ...] = ()
    returns_tuple: bool = False
    refusal: str | None = None
    flops: int = 0


@dataclass(frozen=True)
class BlockKind:
    """What blocks with parameters of the same names and shapes have in common.

    `flops` are floating-point operations of one forward of one block at the example sizes (0 where unknown);
    `missing_streams` the streams that it takes and does not return.
    """

    class_name: str
    num_parameters: int
    size_bytes: int
    flops: int
    components: tuple[Component, ...]
    missing_streams: tuple[str, ...] = ()

    def find_component(self, name: str) -> Component | None:
        """The component of this dotted name, or None."""
        return next((component for component in self.components if component.name == name), None)


@dataclass(frozen=True)
class Stack:
    """One list of blocks. `kind_of[i]` is the index in `kinds` of the kind of block i.

    `streams` is None where they are not known before the model has run; `refusal` says why the stack can't be edited.
    `own_context` are the arguments, streams apart, that the forward makes for each block by its number: they stay with
    the block in a rewritten graph, and would shift if the blocks were renumbered. `read_blocks` are the blocks of which
    the forward uses a part beside calling the block (DiT embeds the time with the first one's norm); `code_use` says,
    for a forward that could not be watched, what in its code goes by the blocks' numbers. `is_inner` says that a
    submodule runs the blocks in its own forward: a plan names such a stack only where it edits it. `between` are the
    stacks whose blocks run between those of this one: they go with its blocks, and a plan edits one stack of them.
    """

    name: str
    kinds: tuple[BlockKind, ...]
    kind_of: tuple[int, ...]
    streams: tuple[str, ...] | None = None
    refusal: str | None = None
    own_context: tuple[str, ...] = ()
    read_blocks: tuple[int, ...] = ()
    code_use: str | None = None
    is_inner: bool = False
    between: tuple[str, ...] = ()

    @property
    def by_number(self) -> tuple[str, ...]:
        """What the forward has for each block by its number: arguments of its own, and blocks of other stacks."""
        return (*self.own_context, *self.between)

    @property
    def num_blocks(self) -> int:
        """The number of blocks of the unedited model."""
        return len(self.kind_of)

    def kind(self, index: int) -> BlockKind:
        """The kind of block `index`."""
        return self.kinds[self.kind_of[index]]

    def component_names(self) -> tuple[str, ...]:
        """The names of all components of all kinds, in the order of the code."""
        return tuple(dict.fromkeys(component.name for kind in self.kinds for component in kind.components))


@dataclass(frozen=True)
class Anatomy:
    """A model: its class, its stacks in the order in which they run, its size.

    `dtype` is that of the weights, or the one that sizes are reported at where there are no weights (`has_weights`).
    `example` names the example sizes that FLOPs and streams were read at; empty where they are unknown, because the
    model has no example inputs, or because its forward can't be traced whole. `trace_failure` says why it can't, or why
    the inputs that ship for its class do not do. `known_from`
    says whence the inputs were known (see calls.kept_calls): `row`, `found row`, `config`, `call TIME`, or nothing
    where there are none.
    """

    class_name: str
    stacks: tuple[Stack, ...]
    num_parameters: int
    size_bytes: int
    dtype: str
    has_weights: bool
    example: tuple[tuple[str, int], ...] = field(default=())
    trace_failure: str | None = None
    known_from: str = "row"

    @property
    def why_no_inputs(self) -> str:
        """Why there are no example inputs, as a sentence, where there are none."""
        return self.trace_failure or f"there are no example inputs for {self.class_name}"

    @property
    def has_example_inputs(self) -> bool:
        """Whether a call of the model is known, so that its forward can be tried without weights."""
        return bool(self.known_from)

    def stack(self, name: str) -> Stack:
        """The stack of this dotted name, which is of this model: in a plan for it, say."""
        found = self.find_stack(name)
        assert found is not None, f"{self.class_name} has no stack {name}"
        return found

    def find_stack(self, name: str) -> Stack | None:
        """The stack of this dotted name, or None."""
        return next((stack for stack in self.stacks if stack.name == name), None)
