"""Spec x Anatomy -> Plan. Operations apply in order, on schedules; all faults are collected with their places."""

from dataclasses import dataclass, field
from math import isfinite
from typing import assert_never

from surgery.anatomy.anatomy import Anatomy, Stack
from surgery.anatomy.resolve import SelectedComponent, SelectedLayers, find_stacks, resolve_components, resolve_layers
from surgery.errors import NotYetError
from surgery.plan import edits
from surgery.plan.atom_faults import join_faults
from surgery.plan.atoms import Atom, Grid, cut_by_windows, operations_within
from surgery.plan.edits import Items
from surgery.plan.invariants import check_plan, misplaced_layer
from surgery.plan.names import selectors_of
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.profile_groups import FoundGroup, with_groups
from surgery.plan.replacements import MeanValues, means_refusal, overlap, refusal_of_component
from surgery.plan.schedule import Group, Item, Layer, Schedule, canonical, count_executions, iter_layers
from surgery.plan.windowed import AnyPlan, windowed_plan
from surgery.spec import operations as ops
from surgery.spec.limits import MAX_EXECUTIONS, MAX_WINDOWS
from surgery.spec.load import Spec
from surgery.spec.nearest import shorten
from surgery.spec.places import Faults, Place
from surgery.spec.selector import indices_to_text


def lower_spec(
    spec: Spec,
    anatomy: Anatomy,
    means: MeanValues | None = None,
    groups: tuple[FoundGroup, ...] = (),
    faults: Faults | None = None,
) -> AnyPlan:
    """What `spec` means for a model of this anatomy, in each atom of its windows; nothing is read.

    `groups` are those that it takes from profiles, as `find_profile_groups` found them, and `faults` what that met:
    `planned.plan_spec` does both.

    Raises:
        SpecError: the spec does not fit the model; all faults, with their places.
        NotYetError: the spec is valid and uses what this version does not run.
    """
    assert faults is not None or not spec.profile_groups, "groups are looked up before"
    _refuse_not_yet(spec)
    faults = faults or Faults(spec.file)
    for name, place in spec.group_names:
        if anatomy.find_stack(name) is not None:
            faults.add(place, f'the group "{name}" has the name of a stack; give it another name')
    grid = _grid_of(spec, faults)
    plans: dict[Atom, Plan] = {}
    found: dict[Atom, Faults] = {}
    for atom in grid.atoms():
        lowering = _Lowering(anatomy, faults.apart(), means)
        for operation in operations_within(spec.operations, atom):
            lowering.apply(operation, groups)
        plans[atom], found[atom] = lowering.plan(), lowering.faults
    join_faults(faults, found, spec.operations)
    faults.raise_if_any()
    for plan in dict.fromkeys(plans.values()):
        check_plan(plan, anatomy)
    return windowed_plan(grid, plans.__getitem__)


def _grid_of(spec: Spec, faults: Faults) -> Grid:
    """The atoms of the windows of a spec; one for all where there are too many."""
    windows = [operation.when for operation in spec.operations if operation.when is not None]
    grid = cut_by_windows(windows)
    if len(grid) > MAX_WINDOWS:
        fact = f"the windows cut sampling into {len(grid):,} parts in which other layers may run"
        faults.add(windows[-1].place, f"{fact}; write at most {MAX_WINDOWS}")
        return Grid()
    return grid


def _refuse_not_yet(spec: Spec) -> None:
    """Valid parts of the language that would run in a later version."""
    reasons: list[tuple[Place, str]] = []
    reasons += [
        (variable.place, "a sweep (vary) has many plans; evaluate and generate run its variants")
        for variable in spec.variables
    ]
    for operation in spec.operations:
        reasons += [
            (selector.place, "a second transformer can't be edited in this version; leave transformer_2/ out")
            for selector in selectors_of(operation)
            if selector.model == "transformer_2"
        ]
    if reasons:
        lines = [f"{spec.file}:{place.line}:{place.column}: not yet: {text}" for place, text in sorted(reasons)]
        raise NotYetError("\n".join(dict.fromkeys(lines)))


@dataclass
class _Lowering:
    """The schedules as they stand, and what made them so.

    `open` are the stacks that an operation with a fault was to edit: how their layers would stand is not known, and
    faults that may only follow from that are not said.
    """

    anatomy: Anatomy
    faults: Faults
    means: MeanValues | None
    schedules: dict[str, Items] = field(default_factory=dict)
    replacements: dict[tuple[str, int, str], ReplacedComponent] = field(default_factory=dict)
    edited: dict[str, Place] = field(default_factory=dict)
    gone: dict[tuple[str, int], Place] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for stack in self.anatomy.stacks:
            self.schedules[stack.name] = tuple(Layer(index) for index in range(stack.num_blocks))

    def plan(self) -> Plan:
        order = {stack.name: position for position, stack in enumerate(self.anatomy.stacks)}
        replacements = sorted(
            self.replacements.values(), key=lambda item: (order[item.stack], item.index, item.component)
        )
        replaced = {item.stack for item in replacements}
        schedules = (
            (stack, Schedule(stack.name, stack.num_blocks, canonical(self.schedules[stack.name])))
            for stack in self.anatomy.stacks
        )
        named = tuple(
            schedule
            for stack, schedule in schedules
            if not stack.is_inner or not schedule.is_identity or stack.name in replaced
        )
        return Plan(self.anatomy.class_name, named, tuple(replacements))

    def apply(self, operation: ops.AnyOperation, groups: tuple[FoundGroup, ...]) -> None:
        """One operation, on all stacks that it selects."""
        num_met = self.faults.num_met
        selecting = with_groups(operation, groups, self.faults)
        match selecting:
            case None:
                pass
            case ops.Replace():
                self.replace(selecting, num_met)
            case ops.Order():
                self.order(selecting)
            case ops.OnLayers():
                self.schedule_operation(selecting, num_met)
            case _:
                assert_never(selecting)
        if self.faults.num_met > num_met and not isinstance(operation, ops.Replace):
            self.leave_open(operation)

    def leave_open(self, operation: ops.AnyOperation) -> None:
        """How the stacks stand that an operation with a fault names: all, where it names one that there is not."""
        quiet = Faults(self.faults.file)
        named = [find_stacks(selector, self.anatomy, quiet) for selector in selectors_of(operation)]
        self.open |= {stack.name for stacks in ([self.anatomy.stacks] if quiet.found else named) for stack in stacks}

    def judge(self, stack: str, place: Place, text: str) -> None:
        """A fault in how layers stand; not said where an earlier fault has left that open."""
        if stack not in self.open:
            self.faults.add(place, text)

    def schedule_operation(self, operation: ops.LayerOperation, num_met: int) -> None:
        """It is left out where more faults than `num_met` have been met, which then are in its selection."""
        selected = resolve_layers(operation.layers, self.anatomy, self.faults)
        num_layers = sum(len(layers.indices) for layers in selected)
        if self.faults.num_met > num_met or not self.matches_expected(operation, num_layers, "layer"):
            return
        if isinstance(operation, ops.Parallel) and not self.has_one_stack(operation, selected):
            return
        for layers in selected:
            if self.can_edit(layers, operation.place):
                self.edit(operation, layers)

    def has_one_stack(self, operation: ops.Parallel, selected: list[SelectedLayers]) -> bool:
        """Whether the layers of a group are of one stack."""
        if any("*" in selector.stack for selector in operation.layers):
            self.faults.add(operation.place, "parallel takes the layers of one stack; write the stack's name, not *")
            return False
        if len(selected) > 1:
            names = " and ".join(layers.stack.name for layers in selected)
            self.faults.add(
                operation.place, f"parallel takes the layers of one stack, not of {names}; write one for each"
            )
            return False
        return True

    def can_edit(self, layers: SelectedLayers, place: Place) -> bool:
        """Whether the stack can be edited, and all selected layers are still there."""
        if layers.stack.refusal is not None:
            self.faults.add(place, f"{layers.stack.name} can't be edited: {layers.stack.refusal}")
            return False
        present = {layer.index for layer in iter_layers(self.schedules[layers.stack.name])}
        missing: dict[int, list[int]] = {}
        for index in layers.indices:
            if index not in present:
                missing.setdefault(self.gone[layers.stack.name, index].line, []).append(index)
        for line, indices in missing.items():
            name = f"{layers.stack.name}[{indices_to_text(indices)}]"
            self.faults.add(place, f"{name} is gone since line {line}; leave it out, or edit it earlier")
        return not missing

    def edit(
        self,
        operation: ops.LayerOperation,
        layers: SelectedLayers,
    ) -> None:
        """One operation on one stack; the schedule stays as it is where it has a fault."""
        name = layers.stack.name
        before = self.schedules[name]
        chosen = frozenset(layers.indices)
        positions = [] if isinstance(operation, ops.Skip) else self.positions(name, chosen, operation.place)
        if positions is None or (name in self.open and _depends_on_order(operation)):
            return
        match operation:
            case ops.Skip():
                after: Items | None = edits.without(before, chosen)
            case ops.Repeat():
                after = self.repeat(operation, layers.stack, before, positions)
            case ops.Reverse():
                after = edits.reversed_(before, positions)
            case ops.Shuffle():
                after = edits.shuffled(before, positions, operation.seed)
            case ops.Parallel():
                after = self.parallel(operation, name, before, positions)
            case ops.Scale():
                after = edits.scaled(before, positions, operation.by)
            case _:
                assert_never(operation)
        if after is not None:
            self.settle(layers.stack, after, operation.place)

    def settle(self, stack: Stack, after: Items, place: Place) -> None:
        """Keep a new schedule, unless it is absurdly long or a layer does not fit where it is put."""
        num_executions = sum(count_executions(after).values())
        if num_executions > MAX_EXECUTIONS:
            self.judge(
                stack.name,
                place,
                f"{stack.name} would run more than {MAX_EXECUTIONS:,} layers in one forward; "
                "write smaller times or loops",
            )
            return
        if not all(isfinite(layer.scale) for layer in iter_layers(after)):
            fact = f"the scales of {stack.name} multiply to more than a number holds"
            self.judge(stack.name, place, f"{fact}; write smaller ones")
            return
        misplaced = misplaced_layer(after, stack)
        if misplaced is not None:
            self.faults.add(place, misplaced)
            return
        left = {layer.index for layer in iter_layers(after)}
        for layer in iter_layers(self.schedules[stack.name]):
            if layer.index not in left:
                self.gone.setdefault((stack.name, layer.index), place)
        self.schedules[stack.name] = after
        self.edited.setdefault(stack.name, place)

    def positions(self, stack: str, chosen: frozenset[int], place: Place) -> list[int] | None:
        """The top-level items that are selected; None (and a fault) where one is covered partly."""
        items = self.schedules[stack]
        torn = edits.partly_covered(items, chosen)
        if torn is None:
            return edits.covered_positions(items, chosen)
        what = "group" if isinstance(torn, Group) else "loop"
        names = f"{stack}[{indices_to_text({layer.index for layer in iter_layers((torn,))})}]"
        self.judge(stack, place, f"the selection covers the {what} of {names} partly; select all of it or none")
        return None

    def are_neighbours(self, positions: list[int], stack: str, what: str, place: Place) -> bool:
        """Whether the positions are a run of the schedule."""
        between = edits.items_between(self.schedules[stack], positions)
        if not between:
            return True
        names = indices_to_text({layer.index for layer in iter_layers(between)})
        text = f"{what} takes a run of neighbours, but {stack}[{names}] stands between; select it too"
        self.judge(stack, place, text)
        return False

    def repeat(self, operation: ops.Repeat, stack: Stack, before: Items, positions: list[int]) -> Items | None:
        if operation.times is not None:
            if not self.are_neighbours(positions, stack.name, "repeat", operation.place):
                return None
            return edits.repeated(before, positions, operation.times)
        layer = self.layer_to_use(operation, stack, before, positions)
        return None if layer is None else edits.filled(before, positions, layer)

    def layer_to_use(self, operation: ops.Repeat, stack: Stack, before: Items, positions: list[int]) -> Layer | None:
        """The layer that a middle repeat runs everywhere."""
        if operation.using == "center":
            center = before[positions[(len(positions) - 1) // 2]]
            if isinstance(center, Layer):
                return center
            self.faults.add(
                operation.place, "the center of the selection is a group or a loop; write using: and a layer"
            )
            return None
        assert operation.using is not None, "times or using is given"
        index = operation.using + stack.num_blocks if operation.using < 0 else operation.using
        present = [layer for layer in iter_layers(before) if layer.index == index]
        if present:
            return present[0]
        lost = self.gone.get((stack.name, index))
        if lost is not None:
            fact = f"{stack.name}[{index}], which using names, is gone since line {lost.line}"
        else:
            fact = f"using names layer {operation.using}; {stack.name} has layers 0 to {stack.num_blocks - 1}"
        self.faults.add(operation.place, f"{fact}; write a layer that runs, or center")
        return None

    def parallel(self, operation: ops.Parallel, stack: str, before: Items, positions: list[int]) -> Items | None:
        if not self.are_neighbours(positions, stack, "parallel", operation.place):
            return None
        after = edits.grouped(before, positions, operation.combine, operation.loops)
        if after is None:
            text = "the selection holds a group or a loop; groups do not nest; select layers only"
            self.judge(stack, operation.place, text)
        return after

    def order(self, operation: ops.Order) -> None:
        if "*" in operation.stack:
            self.faults.add(operation.stack_place, "order writes out one stack; write the stack's name, not *")
            return
        found = find_stacks(selectors_of(operation)[0], self.anatomy, self.faults)
        if not found:
            return
        stack = found[0]
        if stack.refusal is not None:
            self.faults.add(operation.place, f"{stack.name} can't be edited: {stack.refusal}")
            return
        if stack.name in self.edited:
            first = self.edited[stack.name]
            self.faults.add(
                operation.place,
                f"order writes out the whole schedule of {stack.name}, which line {first.line} has edited; "
                "put it first",
            )
            return
        num_met = self.faults.num_met
        items = tuple(made for item in operation.items for made in self.order_item(item, stack))
        layers = {layer.index for layer in iter_layers(items)}
        if self.faults.num_met == num_met and self.matches_expected(operation, len(layers), "layer"):
            self.settle(stack, items, operation.place)

    def order_item(self, item: ops.OrderGroup | ops.OrderRange, stack: Stack) -> list[Item]:
        last = stack.num_blocks - 1
        if isinstance(item, ops.OrderGroup):
            wrong = [index for index in item.layers if not -stack.num_blocks <= index <= last]
            for index in wrong:
                self.faults.add(
                    item.place, f"there is no layer {index}; {stack.name} has layers 0 to {last}; write one of them"
                )
            members = tuple(Layer(index % stack.num_blocks) for index in item.layers)
            return [] if wrong else [Group(members, item.combine, item.loops)]
        if ":" not in item.text and not -stack.num_blocks <= (item.start or 0) <= last:
            self.faults.add(
                item.place,
                f"there is no layer {shorten(item.text)}; {stack.name} has layers 0 to {last}; write one of them",
            )
            return []
        found = list(range(stack.num_blocks))[item.start : item.stop]
        if not found:
            self.faults.add(
                item.place,
                f'"{shorten(item.text)}" matches no layer; {stack.name} has layers 0 to {last}; '
                "ranges are half open, like 4:15",
            )
        return [Layer(index) for index in found]

    def replace(self, operation: ops.Replace, num_met: int) -> None:
        selected = resolve_components(operation.components, self.anatomy, self.faults)
        if self.faults.num_met > num_met or not self.matches_expected(operation, len(selected), "component"):
            return
        refused: dict[tuple[Place, str, str, str], list[int]] = {}
        for item in selected:
            place = item.selector.component_place or item.selector.place
            reason = self.replacement_refusal(item, operation.kind)
            if reason is None:
                digest = self.means.digest if operation.kind == "mean" and self.means is not None else None
                made = ReplacedComponent(item.stack.name, item.index, item.component, operation.kind, digest)
                self.replacements[made.stack, made.index, made.component] = made
            else:
                refused.setdefault((place, item.stack.name, item.component, reason), []).append(item.index)
        for (place, stack, component, reason), indices in refused.items():
            self.faults.add(place, f"{stack}[{indices_to_text(indices)}].{component} {reason}")

    def replacement_refusal(self, item: SelectedComponent, kind: str) -> str | None:
        """Why a component can't be replaced, as it follows after its name; None if it can."""
        lost = self.gone.get((item.stack.name, item.index))
        if lost is not None:
            return f"is gone since line {lost.line}; leave it out, or replace it earlier"
        found = refusal_of_component(item, kind) or overlap(item, self.replacements.values())
        return found or (means_refusal(item, self.means) if kind == "mean" else None)

    def matches_expected(self, operation: ops.AnyOperation, found: int, what: str) -> bool:
        """Whether as many layers or components are selected as the spec expects."""
        if operation.expect is None or found == operation.expect:
            return True
        plural = "" if found == 1 else "s"
        self.faults.add(
            operation.place,
            f"expect says {operation.expect}, but the operation matches {found} {what}{plural}; correct one of the two",
        )
        return False


def _depends_on_order(operation: ops.AnyOperation) -> bool:
    """Whether what an operation does to some layers depends on the order in which they stand."""
    return isinstance(operation, ops.Shuffle) or (isinstance(operation, ops.Repeat) and operation.using == "center")
