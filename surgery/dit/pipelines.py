"""A DiT, a scheduler of diffusers and an autoencoder -> pictures of classes, or of texts, with guidance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor

from surgery.dit.model import DiT

GREY, COLOURS = 1, 3  # channels of pictures
MAX_TOKENS = 512  # of a text
NUM_STEPS, GUIDANCE_SCALE = 20, 2.5  # the study's


class ClassDiTPipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is not typed
    """Pictures of classes, by a `DiT` with `num_classes`.

    `vae` is any autoencoder of diffusers; without one, the DiT's channels are those of pictures from -1 to 1 (one is
    grey, three are colours). `id2label` names the classes by their numbers; `labels` are the numbers by the names.

    Raises:
        ValueError: the transformer is of texts, two classes have one name, or a class is not the transformer's.
    """

    __module__ = "surgery.dit"  # where it is imported from
    model_cpu_offload_seq = "transformer->vae"
    _optional_components = ["vae"]  # noqa: RUF012  (as diffusers has it)

    def __init__(
        self, transformer: DiT, scheduler: Any, vae: Any = None, id2label: dict[str, str] | None = None
    ) -> None:
        super().__init__()
        num_classes = transformer.config.num_classes
        if num_classes is None:
            raise ValueError("this transformer is conditioned on texts; make a TextDiTPipeline of it")
        self.labels = _numbers_of_labels(id2label or {}, num_classes)
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)
        self.register_to_config(id2label={str(number): name for name, number in self.labels.items()})
        self.vae_scale_factor = _scale_of(vae)
        self.image_processor = _processor_for(transformer, vae)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int],
        *,
        guidance_scale: float = GUIDANCE_SCALE,
        num_inference_steps: int = NUM_STEPS,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw a picture of each class.

        The noise is predicted as u + w (c - u), of the prediction c for the class and u for none; w, the guidance
        scale, is 1 for the class alone and 0 for none. `latents` (batch, channels, height, width) are the noise to
        begin with. `output_type` is pil, np, pt, or latent.

        Raises:
            ValueError: there is no such class.
        """
        none = self.transformer.config.num_classes
        wrong = [label for label in class_labels if not 0 <= label < none]
        if wrong:
            raise ValueError(f"there is no class {wrong[0]}; classes are numbered 0 to {none - 1}")
        given = torch.tensor(class_labels, dtype=torch.long, device=self.device)
        branches = _branches("class_labels", given, torch.full_like(given, none), guidance_scale)
        latents = _initial_noise(self, len(given), generator, latents)
        latents = _denoise(self, latents, branches, guidance_scale, num_inference_steps)
        return _finish(self, latents, output_type, return_dict=return_dict)


class TextDiTPipeline(DiffusionPipeline):  # type: ignore[misc]  # the same
    """Pictures of texts, by a `DiT` with `pooled_projection_dim`, and any encoder of texts of transformers.

    A text is one vector: what the encoder has projected (`text_embeds`) or pooled (`pooler_output`), else the mean of
    its last states over the tokens that are not padding. `vae` as of `ClassDiTPipeline`.

    Raises:
        ValueError: the transformer is of classes.
    """

    __module__ = "surgery.dit"
    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["vae"]  # noqa: RUF012  (as diffusers has it)

    def __init__(self, transformer: DiT, scheduler: Any, text_encoder: Any, tokenizer: Any, vae: Any = None) -> None:
        super().__init__()
        if transformer.config.pooled_projection_dim is None:
            raise ValueError("this transformer is conditioned on classes; make a ClassDiTPipeline of it")
        self.register_modules(
            transformer=transformer, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer, vae=vae
        )
        self.vae_scale_factor = _scale_of(vae)
        self.image_processor = _processor_for(transformer, vae)

    @torch.no_grad()
    def encode_prompt(self, prompt: Sequence[str]) -> torch.Tensor:
        """(batch, pooled_projection_dim); what is longer than the encoder takes is cut.

        Raises:
            ValueError: the encoder has another number of channels than the transformer takes.
        """
        pooled = encode_texts(self.text_encoder, self.tokenizer, prompt)
        wanted = self.transformer.config.pooled_projection_dim
        if pooled.shape[-1] != wanted:
            raise ValueError(f"the encoder makes {pooled.shape[-1]} channels of a text, and the DiT takes {wanted}")
        return pooled.to(self.transformer.dtype)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        guidance_scale: float = GUIDANCE_SCALE,
        num_inference_steps: int = NUM_STEPS,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw a picture of each prompt; u of `ClassDiTPipeline` is the prediction for the negative prompt."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        device = self.device
        given = self.encode_prompt(prompts).to(device)
        none = self.encode_prompt([negative_prompt]).to(device).expand_as(given)
        branches = _branches("pooled_projections", given, none, guidance_scale)
        latents = _initial_noise(self, len(given), generator, latents)
        latents = _denoise(self, latents, branches, guidance_scale, num_inference_steps)
        return _finish(self, latents, output_type, return_dict=return_dict)


def encode_texts(text_encoder: Any, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """(batch, channels), as of `TextDiTPipeline`; what is longer than the encoder takes is cut."""
    length = min(tokenizer.model_max_length, MAX_TOKENS)  # which says 10^30 where nobody has set it
    tokens = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    mask = tokens.attention_mask.to(text_encoder.device)
    return _pool(text_encoder(tokens.input_ids.to(text_encoder.device), attention_mask=mask), mask)


def _numbers_of_labels(id2label: Mapping[str, str], num_classes: int) -> dict[str, int]:
    """The numbers of classes by their names."""
    labels = {str(name): int(number) for number, name in id2label.items()}
    if len(labels) < len(id2label):
        raise ValueError("two classes of id2label have one name; write another for one of them")
    wrong = [number for number in labels.values() if not 0 <= number < num_classes]
    if wrong:
        raise ValueError(f"id2label names class {wrong[0]}; the transformer has classes 0 to {num_classes - 1}")
    return labels


def _scale_of(vae: Any) -> int:
    """How many pixels are a latent's side."""
    if vae is None:
        return 1
    return 2 ** (len(getattr(vae.config, "block_out_channels", ()) or (1,)) - 1)


def _processor_for(transformer: DiT, vae: Any) -> VaeImageProcessor:
    channels = transformer.config.in_channels if vae is None else COLOURS
    if channels not in (GREY, COLOURS):
        raise ValueError(f"without a vae a picture has 1 channel or 3, and the transformer has {channels}")
    return VaeImageProcessor(vae_scale_factor=_scale_of(vae), do_convert_grayscale=channels == GREY)


def _pool(output: Any, mask: torch.Tensor) -> torch.Tensor:
    """One vector a text, (batch, channels)."""
    for name in ("text_embeds", "pooler_output"):
        pooled = getattr(output, name, None)
        if pooled is not None:
            return pooled
    weights = mask[:, :, None].to(output.last_hidden_state)
    return (output.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _branches(
    name: str, given: torch.Tensor, none: torch.Tensor, guidance_scale: float
) -> list[dict[str, torch.Tensor]]:
    """What the transformer is given of labels in each step: one branch where the other has no weight."""
    if guidance_scale == 1:
        return [{name: given}]
    if guidance_scale == 0:
        return [{name: none}]
    return [{name: given}, {name: none}]


def _initial_noise(
    pipe: Any, count: int, generator: torch.Generator | list[torch.Generator] | None, latents: torch.Tensor | None
) -> torch.Tensor:
    config, dtype = pipe.transformer.config, pipe.transformer.dtype
    if latents is not None:
        return latents.to(pipe.device, dtype)
    shape = (count, config.in_channels, config.sample_size, config.sample_size)
    return randn_tensor(shape, generator=generator, device=pipe.device, dtype=dtype)


def _denoise(
    pipe: Any, latents: torch.Tensor, branches: Sequence[Mapping[str, torch.Tensor]], scale: float, num_steps: int
) -> torch.Tensor:
    """Noise -> latents, step by step."""
    scheduler = pipe.scheduler
    scheduler.set_timesteps(num_steps, device=latents.device)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    labels = {name: torch.cat([branch[name] for branch in branches]) for name in branches[0]}
    for timestep in pipe.progress_bar(scheduler.timesteps):
        rows = torch.cat([latents] * len(branches))
        if hasattr(scheduler, "scale_model_input"):  # flow matching has none
            rows = scheduler.scale_model_input(rows, timestep)
        predicted = pipe.transformer(rows, timestep=timestep.expand(len(rows)), **labels).sample
        if len(branches) > 1:
            conditional, unconditional = predicted.chunk(2)
            predicted = unconditional + scale * (conditional - unconditional)
        latents = latents.to(predicted.device)  # where an offloaded transformer ran
        latents = scheduler.step(predicted, timestep, latents).prev_sample.to(rows.dtype)
    return latents


def _finish(pipe: Any, latents: torch.Tensor, output_type: str, *, return_dict: bool) -> Any:
    images: Any = latents if output_type == "latent" else _decode(pipe, latents, output_type)
    pipe.maybe_free_model_hooks()
    return ImagePipelineOutput(images=images) if return_dict else (images,)


def _decode(pipe: Any, latents: torch.Tensor, output_type: str) -> list[Any] | np.ndarray | torch.Tensor:
    """Latents -> pictures; a grey one has three equal channels, as whoever judges pictures takes them."""
    pixels = latents
    if pipe.vae is not None:
        config = pipe.vae.config
        shift = getattr(config, "shift_factor", None) or 0.0
        pixels = pipe.vae.decode((latents / config.scaling_factor + shift).to(pipe.vae.dtype)).sample
    if pixels.shape[1] == GREY:
        pixels = pixels.expand(-1, COLOURS, -1, -1)
    return pipe.image_processor.postprocess(pixels, output_type=output_type)
