"""A model without a row -> a row, by trying which forms of its arguments carry its forward furthest, without weights.

The signature says the arguments, `likely_forms` what each may be. From the likeliest of all, one argument at a time is
given another form; what lets the forward do more operations before it fails is kept, until it runs to its end. No
weights are read, and no more time is spent than `SECONDS`.
"""

import inspect
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from surgery.calls.call_rows import Form, Maker, Row, Sizes, make_arguments, terms_of
from surgery.calls.likely_forms import ABSENT, Fields, likely_forms
from surgery.tracing.clone import bare_clone, without_memory
from surgery.tracing.wrappers import innermost

SECONDS = 8.0  # of this thread, after which nothing new is tried
LAST_SECONDS = 24.0  # and within which the forward that came furthest must end
MAX_OPERATIONS = 500_000  # of one forward
DONE = MAX_OPERATIONS + 1  # how far a forward came that ran to its end


def find_call(model: nn.Module, sizes: Mapping[str, int], first: Row | None = None) -> Row | None:
    """A row with which the forward of a model runs, at these free sizes; `first`, where it runs with that.

    None where there is none, or none was found in time.
    """
    trials = _Trials(bare_clone(model, lambda tensor: without_memory(tensor, torch.float32)), sizes)
    if first is not None and trials.try_row(first) == DONE:
        return first
    row = _climb(trials)
    return None if row is None else _with_products(row, trials)


def _climb(trials: "_Trials") -> Row | None:
    """From the likeliest form of every argument on: another form of one of them, wherever that carries further."""
    state = {name: forms[0] for name, forms in trials.forms.items()}
    best = trials.try_row(state)
    may_add = False  # what may be left out is only given where nothing else carries further
    while best < DONE and trials.is_in_time():
        before = best
        for move in trials.moves():
            adds = any(state[name] is ABSENT for name in move)
            if adds > may_add or all(state[name] == form for name, form in move.items()):
                continue
            if best == DONE or not trials.is_in_time():
                break
            reached = trials.try_row({**state, **move})
            if reached > best:
                state, best = {**state, **move}, reached
        if best == before and may_add:
            break
        may_add = best == before
    return _likeliest(state, trials) if best == DONE else None


def _likeliest(state: Mapping[str, Form], trials: "_Trials") -> Row:
    """A row that runs, with likelier forms where it runs with those as well: on the way longer was taken for better."""
    for name in state:
        for form in trials.forms[name]:
            if form == state[name] or not trials.is_in_time():
                break
            if trials.try_row({**state, name: form}) == DONE:
                state = {**state, name: form}
                break
    return _given(state)


def _given(state: Mapping[str, Form]) -> Row:
    return {name: form for name, form in state.items() if form is not ABSENT}


def _with_products(row: Row, trials: "_Trials") -> Row:
    """A row whose image tokens are the rows and columns that it also says: they change together."""
    terms = set().union(*map(terms_of, row.values()))
    if "image" not in terms or not {"rows", "columns"} & terms:
        return row
    joined = {name: _renamed(form) for name, form in row.items()}
    return joined if trials.try_row(joined) == DONE else row


def _renamed(form: Form) -> Form:
    if isinstance(form, str):
        return " ".join("rows*columns" if term == "image" else term for term in form.split(" "))
    if isinstance(form, list):
        return [_renamed(item) for item in form]
    if isinstance(form, dict):
        return {
            key: _renamed(value) if key in ("tensor", "list", "tuple", "size") else value for key, value in form.items()
        }
    return form


class _Trials:
    """Forwards of a model on the meta device, and the time that is left for them."""

    def __init__(self, model: nn.Module, sizes: Mapping[str, int]) -> None:
        self.model = model
        self.sizes = sizes
        self.config: Mapping[str, Any] = dict(getattr(model, "config"))  # noqa: B009  (typed as a tensor)
        self.weight = next(value for value in model.parameters() if value.is_floating_point())
        self.begun = time.thread_time()
        parameters = list(inspect.signature(innermost(type(model).forward)).parameters.values())[1:]
        named = [item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
        fields = Fields(self.config, _input_channels(model))
        forms = {item.name: likely_forms(item, fields, is_first=item is named[0]) for item in named}
        self.forms = {name: found for name, found in forms.items() if found}

    def moves(self) -> Iterator[Row]:
        """Other forms: of one argument, or of all arguments of a kind (the places of texts and pictures) at once."""
        kinds: dict[int, list[str]] = {}
        for name, forms in self.forms.items():
            kinds.setdefault(len(forms), []).append(name)
        for names in kinds.values():
            alike = zip(*(self.forms[name] for name in names), strict=True) if len(names) > 1 else ()
            yield from (dict(zip(names, chosen, strict=True)) for chosen in alike)
        for name, each in self.forms.items():
            yield from ({name: form} for form in each)

    def is_in_time(self) -> bool:
        """Whether there is time left."""
        return time.thread_time() < self.begun + SECONDS

    def try_row(self, row: Row) -> int:
        """How many operations the forward does with a row before it fails; DONE where it does not."""
        counter = _Counter(self.begun + LAST_SECONDS)
        try:
            maker = Maker(Sizes(self.sizes, self.config), self.weight, None)
            kwargs = make_arguments(_given(row), maker)
            with torch.no_grad(), _quiet(), counter:
                self.model(**kwargs)
        except Exception:  # forwards raise anything over arguments that make no sense
            return counter.num_operations
        return DONE


class _Counter(TorchFunctionMode):
    """Counts operations; more than there are in a forward, or out of time, are an error."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.num_operations = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_operations += 1
        if self.num_operations > MAX_OPERATIONS or time.thread_time() > self.deadline:
            raise TimeoutError("the forward takes too long")
        return func(*args, **(kwargs or {}))


def _input_channels(model: nn.Module) -> tuple[int, ...]:
    """The channels that the weights outside the stacks take: what the forward is given goes through them first."""
    found: list[int] = []
    for name, module in model.named_modules():
        if not any(part.isdigit() for part in name.split(".")):
            channels = module.__dict__.get("in_features") or module.__dict__.get("in_channels")
            found += [channels] if type(channels) is int else []
    return tuple(dict.fromkeys(found))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what a forward says of arguments that it does not like."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
