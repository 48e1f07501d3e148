"""A config and the shape of its data -> a pipeline around an untrained DiT, and the labels that it is given."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler

from surgery.dit.config_faults import faults_of_config
from surgery.dit.model import DiT
from surgery.dit.pipelines import ClassDiTPipeline, TextDiTPipeline, encode_texts
from surgery.training.dit.components import load_text_encoder
from surgery.training.dit.config import TrainConfig
from surgery.training.dit.config_sections import MODEL_DEFAULTS
from surgery.training.dit.labels import Labels
from surgery.training.dit.run_data import RunData

AT_ONCE = 64  # texts that are encoded
NO_TEXT = ""  # of the branch that guidance goes away from


def build_pipeline(config: TrainConfig, data: RunData, vae: Any) -> Any:
    """The pipeline of a config, with a model that starts from the seed; its scheduler has DDPM's linear betas.

    Raises:
        SpecError: the model does not fit what the autoencoder makes; the encoder of texts can't be loaded.
    """
    channels, size, _ = data.shape
    own = {**config.model, "sample_size": size, "in_channels": channels}
    scheduler = EulerDiscreteScheduler()
    if config.text_encoder is None:
        model = _build_model(config, {**own, "num_classes": len(data.names)})
        id2label = {str(number): name for number, name in enumerate(data.names)}
        pipe: Any = ClassDiTPipeline(model, scheduler, vae, id2label=id2label)
    else:
        encoder, tokenizer = load_text_encoder(config)
        width = encode_texts(encoder, tokenizer, [NO_TEXT]).shape[-1]
        model = _build_model(config, {**own, "pooled_projection_dim": width})
        pipe = TextDiTPipeline(model, scheduler, encoder, tokenizer, vae)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _build_model(config: TrainConfig, fields: Mapping[str, Any]) -> DiT:
    faults = faults_of_config({**MODEL_DEFAULTS, **fields})
    if faults:
        raise config.fault("model.patch_size", "\n".join(faults))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.settings.seed)
        return DiT(**fields)


@torch.no_grad()
def labels_of(pipe: Any, data: RunData) -> Labels:
    """The labels of a run, encoded where they are texts."""
    if isinstance(pipe, ClassDiTPipeline):
        return Labels(data.names)
    texts = [*data.names, NO_TEXT]
    chunks = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
    rows = [pipe.encode_prompt(chunk).float().cpu() for chunk in chunks]
    return Labels(data.names, torch.cat(rows))
