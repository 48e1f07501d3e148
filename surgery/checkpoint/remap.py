"""An adapter of the original (LoRA, LoKr, ...) -> the same for its pruned checkpoint: tensors under new names.

Which rows of which module of the original a module of the pruned class is made of is known (see fitted_blocks.py); an
adapter follows its module: copied to every place where its layer runs, multiplied where the weight is, and cut where
only rows are kept. What has no place falls away, and is listed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from surgery.anatomy.tensor_files import StoredTensor, num_rows
from surgery.checkpoint.adapter_leaves import follow_rows, is_adapter_leaf
from surgery.checkpoint.adapter_names import AdapterNames, OfLayer, OfModule, shorten
from surgery.checkpoint.adapter_shapes import refuse_other_shapes
from surgery.checkpoint.new_checkpoint import NewTensor, Segment, new_checkpoint_from_json
from surgery.errors import InputError, RefusedError

DOES_NOT_RUN = "the layer does not run"
SHOWN = 3  # modules that a message names
MODULE_OF_LAYER = re.compile(r"\.(lora[_.].*|lokr_.*|hada_.*|[^.]+)$")  # what follows a module's name
OF_DIFFUSERS = ("transformer.", "base_model.model.")  # before names, as diffusers and PEFT save them
OF_ANOTHER_KIND = "the stock class has no such module at its new place"


@dataclass(frozen=True)
class FittedClass:
    """A plan fitted to the stock class.

    `shapes` are those of the original's tensors; `tensors` says what the pruned ones are made of; `orders` names the
    layers of each stack in their new order, of `num_layers` that there were.
    """

    class_name: str
    shapes: Mapping[str, Sequence[int]]
    tensors: Mapping[str, tuple[Segment, ...]]
    orders: Mapping[str, Sequence[int]]
    num_layers: Mapping[str, int]

    @cached_property
    def leaves(self) -> Mapping[str, Sequence[str]]:
        """The names of the tensors of each module of the original."""
        found: dict[str, list[str]] = {}
        for name in self.shapes:
            module, _, leaf = name.rpartition(".")
            found.setdefault(module, []).append(leaf)
        return found

    def positions(self, stack: str, index: int) -> list[int]:
        """Where a layer of the original runs now."""
        return [position for position, layer in enumerate(self.orders[stack]) if layer == index]

    def num_rows(self, tensor: str) -> int:
        """The size of the first dimension of a tensor of the original, 1 for a scalar."""
        return num_rows(self.shapes[tensor])

    def is_whole(self, tensor: str, segments: Sequence[Segment]) -> bool:
        """Whether these segments are a tensor of the original, as it is."""
        return tuple(segments) == (Segment(tensor, 0, self.num_rows(tensor)),)


def fitted_from_answer(class_name: str, num_layers: Mapping[str, int], answer: Mapping[str, Any]) -> FittedClass:
    """What the question `fit` is answered with; `num_layers` is the length of each stack of the original."""
    tensors = {tensor.name: tensor.segments for tensor in new_checkpoint_from_json(answer).tensors}
    return FittedClass(class_name, answer["shapes"], tensors, answer["orders"], num_layers)


@dataclass(frozen=True)
class Fallen:
    """Tensors of an adapter that have no place in the pruned model.

    They are of the module `inside` the layer `stack[index]` of the original; `position` is that of the layer now, None
    where it does not run.
    """

    stack: str
    index: int
    inside: str
    reason: str
    tensors: tuple[str, ...]
    position: int | None = None

    @property
    def where(self) -> str:
        """The module in the words of a spec: `transformer_blocks[3].attn`."""
        return ".".join(filter(None, (f"{self.stack}[{self.index}]", self.inside)))


@dataclass(frozen=True)
class Remapped:
    """A remapped adapter before it is written.

    `modules` are those of the original that it adapts, with the names that they have now; `others` the tensors that are
    not of the model, and stay as they are; `unknown` are of its layers, and of modules that the class does not have by
    these names, so that nothing says whether the model has them.
    """

    tensors: tuple[NewTensor, ...]
    fallen: tuple[Fallen, ...]
    modules: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def num_fallen(self) -> int:
        """The number of tensors that fell away wherever they could be."""
        used = {segment.tensor for tensor in self.tensors for segment in tensor.segments}
        return len({name for item in self.fallen for name in item.tensors} - used)


@dataclass
class _Sorted:
    """The tensors of an adapter, by what they are of."""

    modules: dict[str, list[tuple[OfModule, StoredTensor]]] = field(default_factory=dict)
    layers: list[tuple[OfLayer, StoredTensor]] = field(default_factory=list)
    others: list[StoredTensor] = field(default_factory=list)


def remap_adapter(stored: Mapping[str, StoredTensor], fitted: FittedClass) -> Remapped:
    """The tensors of an adapter for the pruned class, and what of it falls away.

    Raises:
        InputError: it is no adapter of this model.
        RefusedError: it is in the authors' layout, and a layer that it is for is changed; or nothing of it is left.
    """
    found = _sort(stored, fitted)
    tensors = [_copy(tensor.name, tensor) for tensor in found.others]
    fallen: list[Fallen] = []
    modules: dict[str, tuple[str, ...]] = {}
    for module, adapter in found.modules.items():
        kept: list[str] = []
        for place, result in _places(module, adapter, fitted):
            if isinstance(result, Fallen):
                fallen.append(result)
            else:
                tensors += result
                kept.append(place)
        if any(named.leaf not in fitted.leaves[module] for named, _ in adapter):
            modules[module] = tuple(kept)
    for named, tensor in found.layers:
        copies = _renumber(named, tensor, fitted)
        tensors += copies
        if not copies:
            fallen.append(Fallen(named.stack, named.index, "", DOES_NOT_RUN, (tensor.name,)))
    if len(tensors) == len(found.others):
        raise RefusedError(
            f"nothing would be left of it: {fallen[0].where}: {fallen[0].reason}, and so on for all of it"
        )
    _refuse_same_names(tensors)
    others = tuple(tensor.name for tensor in found.others)
    unknown = tuple(tensor.name for _, tensor in found.layers)
    return Remapped(tuple(tensors), tuple(_join(fallen)), modules, others, unknown)


def _sort(stored: Mapping[str, StoredTensor], fitted: FittedClass) -> _Sorted:
    names = AdapterNames(fitted.class_name, fitted.shapes, fitted.num_layers)
    found = _Sorted()
    for name, tensor in stored.items():
        match names.find(name):
            case OfModule() as named:
                found.modules.setdefault(named.module, []).append((named, tensor))
            case OfLayer() as named:
                found.layers.append((named, tensor))
            case None:
                found.others.append(tensor)
    _refuse_foreign(found, fitted)
    _refuse_lacking(found, fitted)
    modules = {module: {named.leaf: tensor for named, tensor in adapter} for module, adapter in found.modules.items()}
    refuse_other_shapes(modules, fitted.shapes, fitted.class_name)
    return found


def _refuse_foreign(found: _Sorted, fitted: FittedClass) -> None:
    named = [named for adapter in found.modules.values() for named, _ in adapter]
    if not named and not found.layers:
        shown = ", ".join(shorten(tensor.name) for tensor in found.others[:3]) or "no tensor at all"
        module = next((name.removesuffix(".weight") for name in fitted.shapes if name.endswith("to_q.weight")), None)
        module = module or next(iter(fitted.shapes)).rpartition(".")[0]
        joined = module.replace(".", "_")
        raise InputError(
            f"it names no module of a {fitted.class_name}: it has {shown}; expected are names like transformer."
            f"{module}.lora_A.weight, lora_transformer_{joined}.lora_down.weight or lycoris_{joined}.lokr_w1"
        )
    if not found.layers and not any(is_adapter_leaf(one.leaf) for one in named):
        raise InputError(
            f"it holds {len(named)} tensors of a {fitted.class_name} as they are, and no adapter; a model is pruned by "
            "`surgery compile SPEC --to checkpoint`"
        )


def _refuse_lacking(found: _Sorted, fitted: FittedClass) -> None:
    """Raise InputError where a file in diffusers' layout names modules of layers that the class does not have.

    A file is written in one layout: where most modules are unknown, or the names have not the prefix that diffusers and
    PEFT write, it may be the authors', some of whose names are diffusers' too.
    """
    own = [(named, tensor) for named, tensor in found.layers if named.before.startswith(OF_DIFFUSERS)]
    unknown = {MODULE_OF_LAYER.sub("", tensor.name): None for _, tensor in own}
    if 0 < len(unknown) < len(found.modules):
        shown = ", ".join(shorten(name) for name in list(unknown)[:SHOWN])
        rest = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise InputError(
            f"this {fitted.class_name} has {len(found.modules)} of its modules, and not {shown}{rest}; was it made for "
            "another model? Give that one's spec and --model"
        )


def _places(
    module: str, adapter: Sequence[tuple[OfModule, StoredTensor]], fitted: FittedClass
) -> Iterator[tuple[str, list[NewTensor] | Fallen]]:
    """For each place where a module's layer runs: its name there, and the tensors of its adapter or why it has none."""
    names = tuple(tensor.name for _, tensor in adapter)
    stack, index, inside = _split(module, fitted)
    if stack is None:
        yield module, [_copy(tensor.name, tensor) for _, tensor in adapter]
        return
    positions = fitted.positions(stack, index)
    if not positions:
        yield module, Fallen(stack, index, inside, DOES_NOT_RUN, names)
    for position in positions:
        place = ".".join(filter(None, (stack, str(position), inside)))
        result = _follow(module, place, adapter, fitted)
        if isinstance(result, str):
            yield place, Fallen(stack, index, inside, result, names, position)
        else:
            yield place, result


def _split(module: str, fitted: FittedClass) -> tuple[str | None, int, str]:
    """The stack of a module, the number of its layer, and its name in there; no stack for what is in none."""
    for stack in fitted.orders:
        index, _, inside = module.removeprefix(f"{stack}.").partition(".")
        if module.startswith(f"{stack}.") and index.isdigit():
            return stack, int(index), inside
    return None, 0, module


def _follow(
    module: str, place: str, adapter: Sequence[tuple[OfModule, StoredTensor]], fitted: FittedClass
) -> list[NewTensor] | str:
    """The tensors of a module's adapter at its new place; the reason where one of them can't be there."""
    leaves = fitted.leaves[module]
    present = [leaf for leaf in leaves if f"{place}.{leaf}" in fitted.tensors]
    if not present:
        return OF_ANOTHER_KIND
    moved = []
    for named, tensor in adapter:
        is_tensor = named.leaf in leaves
        leaf = named.leaf if is_tensor else "weight" if "weight" in present else present[0]
        if leaf not in present:
            return OF_ANOTHER_KIND
        rows = fitted.tensors[f"{place}.{leaf}"]
        rows_before = fitted.num_rows(f"{module}.{leaf}")
        result = follow_rows(named.name_for(place), named.leaf, tensor, rows, rows_before, is_tensor=is_tensor)
        if isinstance(result, str):
            return result
        moved.append(result)
    return moved


def _renumber(named: OfLayer, tensor: StoredTensor, fitted: FittedClass) -> list[NewTensor]:
    """A tensor of a layer whose module is not known: it can follow the layer only where that stays whole."""
    found = []
    for position in fitted.positions(named.stack, named.index):
        before, after = f"{named.stack}.{named.index}.", f"{named.stack}.{position}."
        wanted = {name.removeprefix(before) for name in fitted.shapes if name.startswith(before)}
        given = {n.removeprefix(after): rows for n, rows in fitted.tensors.items() if n.startswith(after)}
        if wanted != set(given) or not all(fitted.is_whole(before + rest, rows) for rest, rows in given.items()):
            raise RefusedError(
                f"{shorten(tensor.name)} is no name of a module of diffusers' {fitted.class_name}, so it can only be "
                f"renumbered with its whole layer, and {named.stack}[{named.index}] is not the same at {after[:-1]}; "
                "convert the adapter to diffusers' format first: load_lora_weights() on the original pipeline, then "
                "transformer.save_lora_adapter()"
            )
        found.append(_copy(named.name_for(position), tensor))
    return found


def _copy(name: str, tensor: StoredTensor) -> NewTensor:
    return NewTensor(name, (Segment(tensor.name, 0, num_rows(tensor.shape)),))


def _refuse_same_names(tensors: Sequence[NewTensor]) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise InputError(
                f"two of its tensors would be {shorten(tensor.name)}; does it name one module in two ways?"
            )
        seen.add(tensor.name)


def _join(fallen: Sequence[Fallen]) -> list[Fallen]:
    """One entry a module, place and reason."""
    joined: dict[Fallen, tuple[str, ...]] = {}
    for item in fallen:
        key = replace(item, tensors=())
        joined[key] = joined.get(key, ()) + item.tensors
    return [replace(item, tensors=names) for item, names in joined.items()]
