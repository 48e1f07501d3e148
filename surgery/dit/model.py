"""The reference DiT: noised pictures, times and labels -> the noise in the pictures (DiT, arXiv 2212.09748)."""

from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn
from torch.nn import functional as F

from surgery.diffusers_internals import checkpointing_function
from surgery.dit.blocks import ADAPTIVE, BlockShape, make_block
from surgery.dit.config_faults import check_config, check_weights
from surgery.dit.embeddings import TimeEmbedding, grid_positions, patchify, unpatchify

EMBEDDING_STD = 0.02  # of what embeddings of times and labels start from


def _make_label_embedding(channels: int, num_classes: int | None, text_channels: int | None) -> nn.Module:
    """Of classes, and of none; or of texts; the identity where it is the blocks that project those."""
    if num_classes is not None:
        return nn.Embedding(num_classes + 1, channels)
    return nn.Identity() if text_channels is None else nn.Linear(text_channels, channels)


class DiT(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]  # diffusers is not typed
    """A diffusion transformer that is told the time and the label in one of four ways (`conditioning`).

    `in_context`: as two more tokens, taken out before the head. `cross_attention`: as the two tokens that a second
    attention of each block attends to. `adaln_zero`: their sum modulates the norms of each block, and gates its updates
    from zero on. `freq_gate`: the same, the label by way of a gate that hangs on the time (see `FrequencyGate`). The
    label is the number of a class (`num_classes`; the number behind the last stands for no label) or an encoded text
    (`pooled_projection_dim` channels). It predicts the noise, not its variance.

    The defaults are those of the DiT paper. What the study does otherwise:

    * `cross_attention_tokens=1`: the condition is the one token t + y, which the softmax gives a weight of 1: what is
      attended to is then added to every token alike (likely why it came last there);
    * `affine_norms=True`: layer norms have a gain and a bias, which a modulation makes redundant (0.04% of parameters);
    * `plain_head=True`: no modulation before the head, which does not start at zero: the first prediction is noise of
      its own instead of 0, and the last norm does not know the time;
    * `activation="silu"` in the MLP instead of GELU: as smooth, with a deeper dip below zero;
    * `own_projections=True`: each block projects the text itself, 0.13 million parameters a block that could be shared;
    * `unused_layers=True`: layers that the study's code makes and never runs, so that parameters count alike.

    Raises:
        ValueError: the fields of the config do not go together.
    """

    __module__ = "surgery.dit"  # pipelines write down whence a class is; diffusers has a folder `dit` of its own
    _supports_gradient_checkpointing = True
    _no_split_modules = ["InContextBlock", "CrossAttentionBlock", "AdaptiveBlock"]  # noqa: RUF012  (as diffusers has it)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 384,
        num_layers: int = 12,
        num_attention_heads: int = 6,
        mlp_ratio: float = 4.0,
        conditioning: str = "adaln_zero",
        num_classes: int | None = None,
        pooled_projection_dim: int | None = None,
        cross_attention_tokens: int = 2,
        affine_norms: bool = False,
        plain_head: bool = False,
        activation: str = "gelu",
        own_projections: bool = False,
        unused_layers: bool = False,
    ) -> None:
        super().__init__()
        check_config(self.config)
        self.gradient_checkpointing = False
        shape = BlockShape(
            channels=hidden_size,
            num_heads=num_attention_heads,
            mlp_ratio=mlp_ratio,
            conditioning=conditioning,
            activation=activation,
            affine_norms=affine_norms,
            cross_attention_tokens=cross_attention_tokens,
            label_channels=pooled_projection_dim if own_projections else None,
            unused_label_channels=pooled_projection_dim if unused_layers else None,
        )
        side = sample_size // patch_size
        self.proj_in = nn.Linear(in_channels * patch_size**2, hidden_size)
        self.register_buffer("positions", grid_positions(side, side, hidden_size), persistent=False)
        self.time_embedding = TimeEmbedding(hidden_size)
        self.label_embedding = _make_label_embedding(
            hidden_size, num_classes, None if own_projections else pooled_projection_dim
        )
        if unused_layers and own_projections:
            self.unused = nn.Linear(shape.unused_label_channels or 0, hidden_size)
        self.transformer_blocks = nn.ModuleList(make_block(shape) for _ in range(num_layers))
        self.norm_out = shape.norm()
        is_adaptive = conditioning in ADAPTIVE and not plain_head
        self.modulation_out = nn.Linear(hidden_size, 2 * hidden_size) if is_adaptive else None
        self.proj_out = nn.Linear(hidden_size, in_channels * patch_size**2)
        self._initialise()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, output_loading_info: bool = False, **options: Any
    ) -> Any:
        """As of every model of diffusers, but weights of another config are refused: diffusers warns, and leaves out.

        `options` are those of `ModelMixin.from_pretrained`.

        Raises:
            ValueError: the weights are not those of a DiT with the config beside them.
        """
        model, report = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **options)
        check_weights(str(pretrained_model_name_or_path), report["missing_keys"], report["unexpected_keys"])
        return (model, report) if output_loading_info else model

    @torch.no_grad()
    def _initialise(self) -> None:
        """As the paper: linear layers by Xavier, embeddings small, and zero what modulates and what predicts."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedding in (self.time_embedding.linear_1, self.time_embedding.linear_2, self.label_embedding):
            if isinstance(embedding, nn.Linear | nn.Embedding):
                nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
        zeroed: list[Any] = [block.modulation for block in self.transformer_blocks if hasattr(block, "modulation")]
        zeroed += [] if self.config.plain_head else [self.modulation_out, self.proj_out]
        for layer in filter(None, zeroed):
            nn.init.zeros_(layer.weight)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        pooled_projections: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the noise.

        `hidden_states` (batch, in_channels, height, width), sides that the patch divides; `timestep` (batch,) or a
        single one, as the scheduler counts; `class_labels` (batch,) integers up to `num_classes`, which stands for no
        label; or `pooled_projections` (batch, pooled_projection_dim). `sample` of the result is as `hidden_states`.

        Raises:
            ValueError: the label is not the one that the config asks for, or the patch does not divide a side.
        """
        rows, columns = self._grid_of(hidden_states)
        label = self._embed_label(class_labels, pooled_projections)[:, None]
        time = self.time_embedding(timestep.expand(len(hidden_states)), hidden_states.dtype)[:, None]
        tokens = self.proj_in(patchify(hidden_states, self.config.patch_size))
        tokens = tokens + self._positions_of(rows, columns).to(tokens.dtype)
        context: tuple[torch.Tensor, ...] = (time, label)
        if self.config.conditioning == "in_context":
            tokens, context = torch.cat([tokens, time, label], dim=1), ()
        is_checkpointed = self.gradient_checkpointing and torch.is_grad_enabled()
        run = checkpointing_function(self) if is_checkpointed else nn.Module.__call__
        for block in self.transformer_blocks:
            tokens = run(block, tokens, *context)
        if self.config.conditioning == "in_context":
            tokens = tokens[:, :-2]
        sample = unpatchify(self._predict(tokens, time, label), rows, self.config.patch_size)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _grid_of(self, hidden_states: torch.Tensor) -> tuple[int, int]:
        """How many rows and columns of patches a picture has."""
        height, width = hidden_states.shape[-2:]
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise ValueError(f"a picture of {height} x {width} can't be cut into patches of {patch} x {patch}")
        return height // patch, width // patch

    def _positions_of(self, rows: int, columns: int) -> torch.Tensor:
        """(tokens, channels): those kept for the native size, else made."""
        side = self.config.sample_size // self.config.patch_size
        if (rows, columns) == (side, side):
            return self.positions
        return grid_positions(rows, columns, self.config.hidden_size, self.positions.device)

    def _embed_label(self, class_labels: torch.Tensor | None, pooled: torch.Tensor | None) -> torch.Tensor:
        is_classes = self.config.num_classes is not None
        label, other = (class_labels, pooled) if is_classes else (pooled, class_labels)
        if label is None or other is not None:
            wanted = "class_labels" if is_classes else "pooled_projections"
            raise ValueError(f"this DiT is conditioned on {wanted}; give those, and nothing else of the kind")
        return self.label_embedding(label)

    def _predict(self, tokens: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The head: Linear(LN(h) (1 + scale) + shift), with (shift, scale) = W SiLU(t + y) + b where it is adaptive."""
        tokens = self.norm_out(tokens)
        if self.modulation_out is not None:
            shift, scale = self.modulation_out(F.silu(time + label)).chunk(2, dim=-1)
            tokens = tokens * (1 + scale) + shift
        return self.proj_out(tokens)
