"""Anatomies of three well-known shapes, as data: no model, no torch."""

from surgery.anatomy.anatomy import Anatomy, BlockKind, Component, Stack, TokenOutput

WIDTH = 1152


def _component(name: str, class_name: str, *streams: str, out: int = WIDTH) -> Component:
    outputs = tuple(TokenOutput(stream, WIDTH, out) for stream in streams)
    return Component(name, class_name, 1000, outputs, returns_tuple=len(outputs) > 1)


def _gated_norm(name: str) -> Component:
    reason = "its output 1 is not token-shaped (2x1152: a gate, a shift or an embedding)"
    return Component(name, "AdaLayerNormZero", 1000, refusal=reason)


def _kind(class_name: str, components: tuple[Component, ...], missing: tuple[str, ...] = ()) -> BlockKind:
    return BlockKind(class_name, 10_000, 40_000, 0, components, missing)


def _anatomy(class_name: str, *stacks: Stack) -> Anatomy:
    num_parameters = sum(stack.kind(index).num_parameters for stack in stacks for index in range(stack.num_blocks))
    return Anatomy(class_name, stacks, num_parameters, 4 * num_parameters, "float32", has_weights=True)


def pixart() -> Anatomy:
    """One stack of 28 blocks of one kind, with one stream."""
    image = "hidden_states"
    components = (
        _component("norm1", "LayerNorm", image),
        _component("attn1", "Attention", image),
        _component("attn1.to_q", "Linear", image),
        _component("norm2", "LayerNorm", image),
        _component("attn2", "Attention", image),
        _component("ff", "FeedForward", image),
        _component("ff.net.0.proj", "Linear", image, out=4 * WIDTH),
    )
    kind = _kind("BasicTransformerBlock", components)
    return _anatomy("PixArtTransformer2DModel", Stack("transformer_blocks", (kind,), (0,) * 28, (image,)))


def sd3() -> Anatomy:
    """One stack of 24 blocks with two streams; the last block is of another kind and returns no text."""
    image, text = "hidden_states", "encoder_hidden_states"
    shared = (
        _gated_norm("norm1"),
        _component("attn", "Attention", image, text),
        _component("ff", "FeedForward", image),
    )
    joint = _kind("JointTransformerBlock", (*shared, _component("ff_context", "FeedForward", image)))
    last = _kind("JointTransformerBlock", shared, missing=(text,))
    stack = Stack("transformer_blocks", (joint, last), (0,) * 23 + (1,), (text, image))
    return _anatomy("SD3Transformer2DModel", stack)


def flux() -> Anatomy:
    """A stack of 19 blocks with two streams, and one of 38 blocks."""
    image, text = "hidden_states", "encoder_hidden_states"
    double = (
        _gated_norm("norm1"),
        _component("attn", "FluxAttention", image, text),
        _component("ff", "FeedForward", image),
        _component("ff_context", "FeedForward", image),
    )
    single = (_gated_norm("norm"), _component("attn", "FluxAttention", image), _component("proj_out", "Linear", image))
    return _anatomy(
        "FluxTransformer2DModel",
        Stack("transformer_blocks", (_kind("FluxTransformerBlock", double),), (0,) * 19, (text, image)),
        Stack("single_transformer_blocks", (_kind("FluxSingleTransformerBlock", single),), (0,) * 38, (image, text)),
    )


def by_name() -> dict[str, Anatomy]:
    """The three, by the names that tests call them."""
    return {"pixart": pixart(), "sd3": sd3(), "flux": flux()}
