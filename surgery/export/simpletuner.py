"""A LoKr plan -> the LyCORIS config that SimpleTuner takes, compared with the network that LyCORIS builds of it."""

from surgery.export.lokr_config import config_text, lokr_config, published_config, simpletuner_lines
from surgery.export.target_text import LycorisText, TargetRequest


def to_simpletuner(request: TargetRequest) -> LycorisText:
    """The config in one of two layouts.

    Raises:
        InputError: it is to be verified, and LyCORIS is missing or trains something else.
    """
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
    return LycorisText(config_text(config, request.layout), config, simpletuner_lines(request.path), verified)
