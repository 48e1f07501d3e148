"""A model without a row -> a row, by trying which forms of its arguments carry its forward furthest, without weights.

The signature says the arguments, `likely_forms` what each may be. From the likeliest of all, one argument at a time is
given another form; what lets the forward do more operations before it fails is kept, until it runs to its end. No
weights are read, and no more time is spent than `SECONDS`.
"""

import inspect
import time
from collections.abc import Iterator, Mapping

from torch import nn

from surgery.calls.call_rows import Form, Row, terms_of
from surgery.calls.likely_forms import ABSENT, Fields, likely_forms
from surgery.calls.trials import DONE, Trials
from surgery.tracing.wrappers import innermost

SECONDS = 5.0  # of this thread, after which nothing new is tried


def find_call(model: nn.Module, sizes: Mapping[str, int]) -> Row | None:
    """A row with which the forward of a model runs, at these free sizes.

    None where there is none, or none was found in time.
    """
    search = _Search(model, sizes)
    row = _climb(search)
    if row is None:
        return None
    row = _with_products(row, search)
    return row if Trials(model, sizes, is_cut=False).try_row(row) == DONE else None


def _climb(search: "_Search") -> Row | None:
    """From the likeliest form of every argument on: another form of one of them, wherever that carries further."""
    state = {name: forms[0] for name, forms in search.forms.items()}
    best = search.try_row(state)
    may_add = False  # what may be left out is only given where nothing else carries further
    while best < DONE and search.is_in_time():
        before = best
        for move in search.moves():
            adds = any(state[name] is ABSENT for name in move)
            if adds > may_add or all(state[name] == form for name, form in move.items()):
                continue
            if best == DONE or not search.is_in_time():
                break
            reached = search.try_row({**state, **move})
            if reached > best:
                state, best = {**state, **move}, reached
        if best == before and may_add:
            break
        may_add = best == before
    return _likeliest(state, search) if best == DONE else None


def _likeliest(state: Mapping[str, Form], search: "_Search") -> Row:
    """A row that runs, with likelier forms where it runs with those as well: on the way longer was taken for better."""
    for name in state:
        for form in search.forms[name]:
            if form == state[name] or not search.is_in_time():
                break
            if search.try_row({**state, name: form}) == DONE:
                state = {**state, name: form}
                break
    return _given(state)


def _given(state: Mapping[str, Form]) -> Row:
    return {name: form for name, form in state.items() if form is not ABSENT}


def _with_products(row: Row, search: "_Search") -> Row:
    """A row whose image tokens are the rows and columns that it also says: they change together."""
    terms = set().union(*map(terms_of, row.values()))
    if "image" not in terms or not {"rows", "columns"} & terms:
        return row
    joined = {name: _renamed(form) for name, form in row.items()}
    return joined if search.try_row(joined) == DONE else row


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


class _Search:
    """The forms that each argument of a forward may have, the trials of rows of them, and the time that is left."""

    def __init__(self, model: nn.Module, sizes: Mapping[str, int]) -> None:
        self.trials = Trials(model, sizes)
        self.deadline = time.thread_time() + SECONDS
        parameters = list(inspect.signature(innermost(type(model).forward)).parameters.values())[1:]
        named = [item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
        fields = Fields(self.trials.config, _input_channels(self.trials.model))
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
        return time.thread_time() < self.deadline

    def try_row(self, row: Row) -> int:
        """How far the forward comes with a row, of which some forms may be ABSENT."""
        return self.trials.try_row(_given(row))


def _input_channels(model: nn.Module) -> tuple[int, ...]:
    """The channels that the weights outside the stacks take: what the forward is given goes through them first."""
    found: list[int] = []
    for name, module in model.named_modules():
        if not any(part.isdigit() for part in name.split(".")):
            channels = module.__dict__.get("in_features") or module.__dict__.get("in_channels")
            found += [channels] if type(channels) is int else []
    return tuple(dict.fromkeys(found))
