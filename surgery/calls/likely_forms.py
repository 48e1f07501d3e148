"""A parameter of a forward and the fields of a config -> the forms that it may well take, the likeliest first.

What is read: the name of the parameter, its annotation, and integers of the config. The names are those that forwards
of diffusers have in common; nothing here knows a model.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from surgery.calls.call_rows import FREE_SIZES, Form

ABSENT: Form = None  # the argument is left out
NO_CHANNELS = re.compile(r"num_|_layers|eps|theta|max_|min_|patch|_ratio|freq|sample|length|_len|index|interval|scale")
TEXT_FIELD = re.compile(r"text|caption|cap_|joint|cross|context|encoder|condition|prompt")
TEXT_NAME = re.compile(r"encoder_hidden|text|txt|cap|prompt|context|embeds|llama|t5")
TIME_NAME = re.compile(r"timesteps?|t|r?_?timesteps?(_r)?|.*_timesteps?|timestep_.*|.*sigma|guidance|ofs|.*_time|fps")
INDEX_NAME = re.compile(r".*(ids?|indexes|indices|tags|indicator|labels)(_.*)?|indices_.*")
PLACE_NAME = re.compile(r"(img|txt|image|text)_ids|.*(coords|position_ids|rope_pos|rotary_emb|pos_embeds)")
PAIR_NAME = re.compile(r"original_size|target_size|crop_coords|.*_sizes?")
POOLED_NAME = re.compile(r"pooled|global|proj_embed|style|image_meta")
OFTEN_GIVEN = re.compile(
    r"(encoder_)?hidden_states|timesteps?|pooled_.*|(img|txt)_ids|encoder_hidden_states_.*|(.*_)?num_frames|height|width"
)
NOT_TENSORS = re.compile(r"controlnet_(block|single)|kv_cache|sparse|attention_kwargs|return_dict|skip_layers")


@dataclass(frozen=True)
class Fields:
    """The integers of a config that may be channels, by the terms of rows: the likeliest first, no value twice."""

    config: Mapping[str, Any]
    other_channels: tuple[int, ...] = ()  # of the weights that take inputs, where no field says them

    def latents(self) -> list[str]:
        """Channels of latents."""
        patches = [f"in_channels*{patch}" for patch in (self._patch(), f"{self._patch()}*{self._patch()}") if patch]
        return self._unique(
            ["in_channels", *self._all(re.compile("channels|visual|latent")), *patches, *self._of_weights()]
        )

    def texts(self) -> list[str]:
        """Channels of texts, and of whatever else is encoded."""
        return self._unique([*self._all(TEXT_FIELD), *self._of_weights()])

    def vectors(self) -> list[str]:
        """Channels of one vector a picture."""
        return self._unique([*self._all(re.compile("pool|global|project")), *self.texts()])

    def text_layers(self) -> list[str]:
        """How many layers of a text encoder are given at once."""
        return [name for name, value in self.config.items() if re.search("text.*layers", name) and type(value) is int]

    def patch_term(self, axis: int) -> str:
        """How many latents a token has along an axis (frames, rows, columns)."""
        patch = self.config.get("patch_size")
        if isinstance(patch, (list, tuple)):
            return f"patch_size[{axis}]"
        return "patch_size" if type(patch) is int and axis else "1"

    def _of_weights(self) -> list[str]:
        """Fields that are the inputs of a weight outside the stacks."""
        return [name for name in self._all(None) if self.config[name] in self.other_channels]

    def _patch(self) -> str:
        return "patch_size" if type(self.config.get("patch_size")) is int else ""

    def _all(self, pattern: re.Pattern[str] | None) -> list[str]:
        return [
            name
            for name, value in self.config.items()
            if type(value) is int and value > 1 and name not in FREE_SIZES and not NO_CHANNELS.search(name)
            if pattern is None or pattern.search(name)
        ]

    def _unique(self, terms: list[str]) -> list[str]:
        found: dict[int, str] = {}
        for term in terms:
            names = term.split("*")
            if all(type(self.config.get(name)) is int for name in names):
                value = 1
                for name in names:
                    value *= self.config[name]
                found.setdefault(value, term)
        for number in self.other_channels:
            found.setdefault(number, str(number))
        return list(found.values())


def is_often_given(parameter: inspect.Parameter) -> bool:
    """Whether a call most likely has this argument."""
    return parameter.default is parameter.empty or OFTEN_GIVEN.fullmatch(parameter.name) is not None


def likely_forms(parameter: inspect.Parameter, fields: Fields, *, is_first: bool) -> list[Form]:
    """The forms that an argument may have; the first is the likeliest. What may be left out comes with ABSENT."""
    annotation = "" if parameter.annotation is parameter.empty else str(parameter.annotation)
    texts = map(json.dumps, _forms(parameter.name, annotation, fields, is_first))
    found = [json.loads(text) for text in dict.fromkeys(texts)]
    if parameter.default is parameter.empty:
        return found
    return [*found, ABSENT] if is_often_given(parameter) else [ABSENT, *found]


def _forms(name: str, annotation: str, fields: Fields, is_first: bool) -> Iterator[Form]:
    if NOT_TENSORS.search(name):
        return
    is_plain = annotation and "Tensor" not in annotation
    if is_plain and "bool" in annotation:
        yield from ({"value": False}, {"value": True})
    elif is_plain and re.search(r"\bint\b", annotation) and not re.search("list|tuple|List|Tuple", annotation):
        yield from _numbers(name)
    elif is_plain and re.search(r"\bfloat\b", annotation) and "tuple" not in annotation:
        yield {"value": 1.0}
    elif "shape" in name or ("size" in name and "list" in annotation.lower()):
        yield from _shapes(fields)
    elif "mask" in name:
        yield from _masks()
    elif is_first or re.fullmatch(r"(x|sample|.*latents?(_.*)?|.*hidden_states|.*_cond|.*tokens)", name):
        as_text = TEXT_NAME.search(name) is not None and not is_first
        lists = "list" in annotation.lower()
        yield from _texts(fields, lists=lists) if as_text else _latents(fields, lists=lists)
        yield from _latents(fields, lists=lists) if as_text else _texts(fields, lists=lists)
    elif PAIR_NAME.fullmatch(name):
        yield from ("batch 2", "batch 2 : integer", "batch 1 2")
    elif PLACE_NAME.fullmatch(name):
        yield from _places(name, fields)
    elif TIME_NAME.fullmatch(name):
        yield from ("batch", "batch : integer", "batch 1", "batch image", "batch frames", "1")
    elif INDEX_NAME.fullmatch(name):
        yield from _indices()
    elif POOLED_NAME.search(name):
        yield from (f"batch {channels}" for channels in fields.vectors())
        yield from (f"batch 1 {channels}" for channels in fields.vectors())
    else:
        yield from _texts(fields, lists="list" in annotation.lower())
        yield from (f"batch {channels}" for channels in fields.vectors())
        yield from ("batch : integer", "batch")


def _numbers(name: str) -> Iterator[Form]:
    if name in ("height", "width"):
        yield from ({"size": "rows" if name == "height" else "columns"}, {"size": name})
    if "frames" in name:
        yield from ({"value": 1}, {"size": "frames"})
    if "len" in name:
        yield from ({"size": "text"}, {"size": "text+image"}, {"size": "image"})
    yield from ({"value": 1}, {"value": 0})


def _latents(fields: Fields, *, lists: bool) -> Iterator[Form]:
    for channels in fields.latents():
        if lists:
            yield from (
                {"list": f"{channels} {grid}", "times": "batch"} for grid in ("frames height width", "height width")
            )
        for shape in (
            "batch {} height width",
            "batch image {}",
            "batch {} frames height width",
            "batch frames {} height width",
            "batch {} image",
            "batch frames height width {}",
            "image {}",
        ):
            yield shape.format(channels)


def _texts(fields: Fields, *, lists: bool) -> Iterator[Form]:
    for channels in fields.texts():
        if lists:
            yield {"list": f"text {channels}", "times": "batch"}
            yield [f"batch text {channels}"]
        yield f"batch text {channels}"
    for layers in fields.text_layers():
        yield from (f"batch text {layers} {channels}" for channels in fields.texts())
    for channels in fields.texts():
        yield from (f"batch 1 text {channels}", f"batch {channels}", f"text {channels}")


def _masks() -> Iterator[Form]:
    for tokens in ("text", "image", "text+image"):
        yield from (f"batch {tokens} : boolean", f"batch {tokens}", f"batch {tokens} : integer")
    yield from ("1 1 height width", "batch 1 height width", "batch 1 frames height width", "batch image image")


def _places(name: str, fields: Fields) -> Iterator[Form]:
    tokens = "text" if re.search("txt|text", name) else "image"
    axes_or_more = ("3", "4", "2")
    for axes in axes_or_more:
        yield from (f"{tokens} {axes}", f"batch {tokens} {axes}")
    for axes in axes_or_more:
        yield from (f"text+image {axes}", f"batch text+image {axes}", f"batch {axes} {tokens}")
        yield from (f"{axes} text+image : integer", f"batch {axes} text+image : integer")
    yield from (f"{tokens} : integer", f"batch {tokens} : integer", "text+image : integer")
    grid = [f"{size}//{fields.patch_term(axis)} : integer" for axis, size in enumerate(("frames", "height", "width"))]
    yield grid
    for width in ("attention_head_dim", "attention_head_dim//2"):
        yield from (
            {"tuple": [f"{tokens} {width}"] * 2},
            f"{tokens} {width}",
            {"tuple": [f"batch {tokens} {width}"] * 2},
        )


def _indices() -> Iterator[Form]:
    for tokens in ("text", "image", "text+image"):
        yield from (f"batch {tokens} : integer", f"{tokens} : integer")
    yield from ("batch : integer", "frames : integer", "batch frames : integer")


def _shapes(fields: Fields) -> Iterator[Form]:
    """Frames, rows and columns of the tokens of each picture."""
    sides = [{"size": "rows"}, {"size": "columns"}]
    patched = [{"size": f"{side}//{fields.patch_term(1)}"} for side in ("height", "width")]
    for place in (sides, patched):
        threes = {"tuple": [{"value": 1}, *place]}
        yield from ({"list": [threes], "times": "batch"}, {"list": threes, "times": "batch"})
        yield from ({"list": {"tuple": place}, "times": "batch"}, [threes])
