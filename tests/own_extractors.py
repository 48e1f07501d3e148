"""Extractors of torch-fidelity's kind: one that loads its weights, one that only says so, and what is none."""

import torch
from torch import nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase


class Loaded(FeatureExtractorBase):
    """The same weights whenever it is made."""

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)
        self.weight = nn.Parameter(self.make_weight())

    def make_weight(self):
        return torch.ones(3, 5)

    def forward(self, pictures):
        return (pictures.float().mean((2, 3)) @ self.weight,)

    @staticmethod
    def get_provided_features_list():
        return ("colours",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "colours"


class Forgotten(Loaded):
    """Random weights."""

    def make_weight(self):
        return torch.randn(3, 5)


Neither = dict
