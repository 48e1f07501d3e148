"""The reference DiT: one readable model with four ways of conditioning, its pipelines, its losses and read-outs.

Sources: Peebles and Xie, Scalable Diffusion Models with Transformers (DiT, arXiv 2212.09748), and a study that builds a
DiT from scratch and adds a way of its own (`freq_gate`). Where the two part, the paper's way is the default, and the
study's an option by name; see `DiT`.
"""

from diffusers import ModelMixin as ModelMixin  # diffusers asks the module of a component which base class loads it

from surgery.dit.blocks import CONDITIONINGS as CONDITIONINGS
from surgery.dit.gates import read_channel_gates as read_channel_gates
from surgery.dit.gates import read_gates as read_gates
from surgery.dit.model import DiT as DiT
from surgery.dit.pipelines import ClassDiTPipeline as ClassDiTPipeline
from surgery.dit.pipelines import TextDiTPipeline as TextDiTPipeline
from surgery.dit.spectral_loss import SPECTRAL_WEIGHT as SPECTRAL_WEIGHT
from surgery.dit.spectral_loss import spectral_loss as spectral_loss
from surgery.dit.study import study_config as study_config
from surgery.dit.tiny_pipelines import save_tiny_pipeline as save_tiny_pipeline
