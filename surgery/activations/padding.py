"""Which text tokens are padding: from a mask among the transformer's arguments, or from the pipeline's tokenizers.

Tokenizers are listened to while the pipeline encodes its prompts. A text stream has the tokens of one of them, or of
several in a row (SD3: CLIP's 77, then T5's 256); where none has as many tokens as the stream, padding is unknown. The
stream of the picture's tokens is no text, however many they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch

from surgery.activations.token_masks import TokenArgument
from surgery.pipelines.guidance import CONDITIONAL


@dataclass(frozen=True)
class Tokenized:
    """One call of a tokenizer: the texts, and which (texts, tokens) are no padding."""

    texts: tuple[str, ...]
    mask: torch.Tensor


@dataclass
class PaddingFinder:
    """Finds the masks of text streams for the batch at hand."""

    prompts: tuple[str, ...] = ()
    heard: list[Tokenized] = field(default_factory=list)

    def start(self, prompts: Sequence[str]) -> None:
        """The next batch."""
        self.prompts = tuple(prompts)
        self.heard.clear()

    def find_mask(self, argument: TokenArgument) -> torch.Tensor | None:
        """Which (rows, tokens) of an argument are no padding; None where it is unknown, or no text."""
        if argument.is_picture:
            return None
        given = [
            value
            for name, value in argument.arguments.items()
            if "mask" in name and isinstance(value, torch.Tensor) and tuple(value.shape) == argument.shape[:2]
        ]
        return given[0] > 0 if given else self._from_tokenizers(argument)

    def _from_tokenizers(self, argument: TokenArgument) -> torch.Tensor | None:
        rows: list[torch.Tensor] = []
        positions: dict[str, int] = {}
        masks = {branch: self._mask_of(branch, argument.shape[1]) for branch in dict.fromkeys(argument.branches)}
        for branch in argument.branches:
            mask = masks[branch]
            if mask is None:
                return None
            position = positions.get(branch, 0)
            rows.append(mask[position % len(mask)])
            positions[branch] = position + 1
        return torch.stack(rows)

    def _mask_of(self, branch: str, num_tokens: int) -> torch.Tensor | None:
        """The tokens of all texts of a branch: a row of tokenizers whose numbers of tokens add up to the stream's."""
        is_prompts = branch == CONDITIONAL
        heard = [one for one in self.heard if (one.texts == self.prompts) == is_prompts]
        by_length = {one.mask.shape[1]: one.mask for one in heard}
        for count in range(1, len(by_length) + 1):
            for lengths in combinations(by_length, count):
                masks = [by_length[length] for length in lengths]
                if sum(lengths) == num_tokens and len({len(mask) for mask in masks}) == 1:
                    return torch.cat(masks, 1)
        return None

    @contextmanager
    def listening(self, pipe: Any) -> Iterator[None]:
        """Within it, calls of the pipeline's tokenizers that pad to a fixed length are heard."""
        from transformers import PreTrainedTokenizerBase

        components = list(getattr(pipe, "components", {}).values())
        classes = {type(part) for part in components if isinstance(part, PreTrainedTokenizerBase)}
        with ExitStack() as stack:
            for tokenizer_class in classes:
                stack.enter_context(self._heard_by(tokenizer_class))
            yield

    @contextmanager
    def _heard_by(self, tokenizer_class: Any) -> Iterator[None]:
        own = tokenizer_class.__dict__.get("__call__")
        call = tokenizer_class.__call__

        def tokenize(tokenizer: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
            found = call(tokenizer, text, *args, **kwargs)
            if kwargs.get("padding") == "max_length" and "attention_mask" in found:
                texts = (text,) if isinstance(text, str) else tuple(text)
                self.heard.append(Tokenized(texts, torch.as_tensor(found["attention_mask"]).bool()))
            return found

        tokenizer_class.__call__ = tokenize
        try:
            yield
        finally:
            if own is None:
                del tokenizer_class.__call__
            else:
                tokenizer_class.__call__ = own
