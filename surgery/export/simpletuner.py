"""A LoKr plan -> the LyCORIS config that SimpleTuner takes, compared with the network that LyCORIS builds of it."""

from dataclasses import replace

from surgery.export.lokr_config import config_text, lokr_config, published_config, simpletuner_lines
from surgery.export.target_text import LycorisText, TargetRequest


def to_simpletuner(request: TargetRequest) -> LycorisText:
    """The config in one of two layouts, and the lines of SimpleTuner's own config that name it.

    Raises:
        InputError: it is to be verified, and LyCORIS is missing or trains something else.
    """
    return replace(to_lycoris(request), lines=simpletuner_lines(request.path))


def to_lycoris(request: TargetRequest) -> LycorisText:
    """The same config for other callers of LyCORIS's `create_lycoris`; raises as `to_simpletuner` does."""
    is_published = request.layout == "published"
    layers, plan = request.layers, request.plan
    config = (
        published_config(request.factors, layers.block_classes)
        if is_published
        else lokr_config(plan.rules, layers.grouped)
    )
    verified = None
    if request.verified_on is not None:
        from surgery.export.verify_lokr import verify_lokr

        verified = verify_lokr(plan, config, request.verified_on, published=is_published)
    return LycorisText(config_text(config, request.layout), config, {}, verified)
