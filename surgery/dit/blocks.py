"""The blocks of a DiT, by how they are told the time and the label (DiT, arXiv 2212.09748, section 3.2).

h are the tokens of a picture (batch, tokens, channels); t and y, the time and the label, are one token each,
(batch, 1, channels): so they can be put among the tokens, be attended to, or be broadcast over them.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

CONDITIONINGS = ("in_context", "cross_attention", "adaln_zero", "freq_gate")
ADAPTIVE = ("adaln_zero", "freq_gate")  # those whose norms are modulated
ACTIVATIONS = {"gelu": lambda: nn.GELU(approximate="tanh"), "silu": nn.SiLU}
EPSILON = 1e-6  # of layer norms


@dataclass(frozen=True)
class BlockShape:
    """What the blocks of a model have in common. `label_channels` is set where each block projects the label itself.

    The other fields are those of `DiT`'s config.
    """

    channels: int
    num_heads: int
    mlp_ratio: float
    conditioning: str
    activation: str
    affine_norms: bool
    cross_attention_tokens: int
    label_channels: int | None
    unused_label_channels: int | None

    def norm(self) -> nn.LayerNorm:
        """A layer norm; its own gain and bias are redundant under a modulation, and the paper has none."""
        return nn.LayerNorm(self.channels, EPSILON, elementwise_affine=self.affine_norms)

    def label_projection(self) -> nn.Module:
        """What makes channels of the label that a block is given: the identity, where the model has done it."""
        return nn.Identity() if self.label_channels is None else nn.Linear(self.label_channels, self.channels)


class Attention(nn.Module):
    """softmax(q k' / sqrt(channels of a head)) v by heads, from tokens to themselves or to others."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(batch, tokens, channels), and what is attended to where it is not the same -> (batch, tokens, channels)."""
        others = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = self.to_q(hidden_states), self.to_k(others), self.to_v(others)
        heads = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self.to_out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """The MLP of a block: channels -> mlp_ratio x channels -> channels, with an activation between."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        inner = int(shape.channels * shape.mlp_ratio)
        self.up = nn.Linear(shape.channels, inner)
        self.activation = ACTIVATIONS[shape.activation]()
        self.down = nn.Linear(inner, shape.channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, channels) -> the same."""
        return self.down(self.activation(self.up(hidden_states)))


class InContextBlock(nn.Module):
    """A plain transformer block; t and y are two of its tokens: h += Attn(LN(h)); h += MLP(LN(h))."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.norm1 = shape.norm()
        self.attn1 = Attention(shape.channels, shape.num_heads)
        self.norm2 = shape.norm()
        self.ff = FeedForward(shape)
        if shape.unused_label_channels is not None:
            self.unused = nn.Linear(shape.unused_label_channels, shape.channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens + 2, channels) -> the same."""
        hidden_states = hidden_states + self.attn1(self.norm1(hidden_states))
        return hidden_states + self.ff(self.norm2(hidden_states))


class CrossAttentionBlock(nn.Module):
    """A second attention of the tokens to the condition: h += Attn(LN(h)); h += Attn(LN(h), [t, y]); h += MLP(LN(h)).

    The study attends to the one token t + y. The softmax over one key is 1, so that the second attention then adds the
    same vector to every token, whatever the token is.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.is_one_token = shape.cross_attention_tokens == 1
        self.norm1 = shape.norm()
        self.attn1 = Attention(shape.channels, shape.num_heads)
        self.norm2 = shape.norm()
        self.attn2 = Attention(shape.channels, shape.num_heads)
        self.norm3 = shape.norm()
        self.ff = FeedForward(shape)
        self.label_projection = shape.label_projection()
        if shape.unused_label_channels is not None:
            self.unused = nn.Linear(shape.channels, shape.channels)

    def forward(self, hidden_states: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, channels), t and y -> the tokens."""
        label = self.label_projection(label)
        condition = time + label if self.is_one_token else torch.cat([time, label], dim=1)
        hidden_states = hidden_states + self.attn1(self.norm1(hidden_states))
        hidden_states = hidden_states + self.attn2(self.norm2(hidden_states), condition)
        return hidden_states + self.ff(self.norm3(hidden_states))


class SummedCondition(nn.Module):
    """The condition of adaLN-Zero: c = t + y."""

    def forward(self, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """t and y -> c, (batch, 1, channels) each."""
        return time + label


class FrequencyGate(nn.Module):
    """The study's condition: a gate g that hangs on the time mixes two adapters of the label.

    g = sigmoid(W SiLU(t) + b), one value a channel; c = g low(SiLU(y)) + (1 - g) high(SiLU(y)) + t.

    The adapters are called low and high for the frequencies that they are meant to learn, but nothing ties either to a
    frequency: to swap low with high, and W, b with -W, -b (g with 1 - g), leaves the function as it is. So what g does
    over time says which of two adapters is asked, and not what that adapter is for.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, channels)
        self.low = nn.Linear(channels, channels)
        self.high = nn.Linear(channels, channels)

    def forward(self, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """t and y -> c, (batch, 1, channels) each."""
        gate, label = self.gate_at(time), F.silu(label)
        return gate * self.low(label) + (1 - gate) * self.high(label) + time

    def gate_at(self, time: torch.Tensor) -> torch.Tensor:
        """t (..., channels) -> g, in (0, 1)."""
        return torch.sigmoid(self.gate(F.silu(time)))


class AdaptiveBlock(nn.Module):
    """adaLN-Zero: the condition c says how the norms are shifted and scaled, and how much of each update is added.

    (shift1, scale1, gate1, shift2, scale2, gate2) = W SiLU(c) + b, and
    h += gate1 Attn(LN(h) (1 + scale1) + shift1); h += gate2 MLP(LN(h) (1 + scale2) + shift2).
    W and b start at zero: the block is the identity then.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.label_projection = shape.label_projection()
        self.condition = FrequencyGate(shape.channels) if shape.conditioning == "freq_gate" else SummedCondition()
        self.modulation = nn.Linear(shape.channels, 6 * shape.channels)
        self.norm1 = shape.norm()
        self.attn1 = Attention(shape.channels, shape.num_heads)
        self.norm2 = shape.norm()
        self.ff = FeedForward(shape)

    def forward(self, hidden_states: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, channels), t and y -> the tokens."""
        condition = self.condition(time, self.label_projection(label))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition)).chunk(6, dim=-1)
        attended = self.attn1(self.norm1(hidden_states) * (1 + scale1) + shift1)
        hidden_states = hidden_states + gate1 * attended
        return hidden_states + gate2 * self.ff(self.norm2(hidden_states) * (1 + scale2) + shift2)


def make_block(shape: BlockShape) -> nn.Module:
    """A block of the conditioning of a shape."""
    match shape.conditioning:
        case "in_context":
            return InContextBlock(shape)
        case "cross_attention":
            return CrossAttentionBlock(shape)
    return AdaptiveBlock(shape)
