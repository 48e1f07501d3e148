"""The JSON Schema says what the reader says, as far as a schema can see."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError

from surgery.errors import SpecError
from surgery.spec.document import Entries, Items, Scalar, Value, read_document
from surgery.spec.grammar import OPERATIONS
from surgery.spec.load import read_spec
from surgery.spec.places import Faults
from surgery.spec.schema import json_schema

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.yaml"))
BAD = sorted((ROOT / "tests" / "messages").glob("*.yaml"))
VALIDATOR = Draft7Validator(json_schema())

# What a schema can't see. A bad spec that is in none of these lists must be refused.
ONLY_YAML_TELLS = {
    *("aliases_too_deep", "aliases_too_many", "control_characters", "duplicate_key", "empty_file", "half_a_character"),
    *("indented_behind_a_dash", "indented_too_far", "indented_too_little", "key_no_text"),
    *("nested_too_deeply", "not_utf8", "second_document", "tabs", "yaml_base_60_in_order", "yaml_braces"),
    *("yaml_braces_over_lines", "yaml_brackets", "yaml_merge_key", "yaml_star", "yaml_tag", "yaml_unclosed_quote"),
    *("yaml_faults_all_at_once", "yaml_unknown_alias", "yaml_wrong_escape"),
}
ONLY_A_MODEL_TELLS = {
    *("component_of_another_stack", "fault_behind_an_alias", "faults_of_both_stacks", "group_fault_is_said_once"),
    *("order_misspelt_stack", "stack_star_matches_nothing"),
    *("component_missing_in_last_block", "component_refused", "component_star_matches_nothing", "duplicate_in_list"),
    *("duplicate_in_selector", "empty_range", "expect_mismatch", "expect_mismatch_component", "gone_layer_used"),
    *("gone_layers", "group_named_as_a_stack", "kind_grouped", "kind_moved", "kind_repeated", "mean_without_profile"),
    *("misspelt_component", "misspelt_stack", "nested_groups", "order_not_first", "order_out_of_range", "out_of_range"),
    *("out_of_range_negative", "parallel_not_neighbours", "parallel_over_two_stacks", "parallel_with_star"),
    *("partial_group", "partial_loop", "repeat_not_neighbours", "replace_gone_layer", "replace_input_of_another_shape"),
    *("replace_twice", "replace_within_replaced", "several_faults_against_the_model", "too_many_executions"),
    *("using_out_of_range", "group_of_a_missing_profile", "group_of_components_with_a_fault", "order_behind_an_alias"),
    *("component_missing_in_every_kind", "consequences_of_a_typo", "expect_tells_of_other_layers"),
    *("group_with_a_fault_used_twice", "when_gone_in_one_window", "when_order_twice_in_one_window"),
    *("expect_over_both", "second_has_fewer_layers", "mean_of_the_second", "second_lacks_the_stack", "second_missing"),
}
ONLY_THE_READER_TELLS = {  # names that are defined elsewhere in the spec, and arithmetic
    *("group_names_a_layer_twice", "group_unknown", "group_with_two_components", "selector_without_subscript"),
    *("vary_cumulative_unknown", "vary_divides_by_zero", "vary_empty_range", "vary_unknown_variable"),
    "cumulative_order_of_a_missing_file",
    *("vary_too_many_values", "vary_unknown_variable_in_a_subscript", "when_window_falling", "wrong_type_by"),
}
NOT_YET = {"sweep_without_a_point"}


def is_accepted(text: str | bytes) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def test_the_schema_is_one():
    Draft7Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_the_file_for_editors_is_up_to_date():
    """Write it again with: surgery schema --out specs/schema.json --force"""
    assert json.loads((ROOT / "specs" / "schema.json").read_text()) == json_schema()


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_spec_that_is_checked_in_is_valid_and_names_the_schema(path):
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(path.read_text()))] == []
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../schema.json"
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "specs" / "schema.json"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_spec_is_refused_unless_a_schema_can_not_see_why(path):
    listed = path.stem in ONLY_YAML_TELLS | ONLY_A_MODEL_TELLS | ONLY_THE_READER_TELLS | NOT_YET
    try:
        accepted = is_accepted(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        assert path.stem in ONLY_YAML_TELLS
        return
    assert accepted == listed or path.stem in ONLY_YAML_TELLS


def test_the_lists_of_what_it_can_not_see_name_bad_specs():
    lists = (ONLY_YAML_TELLS, ONLY_A_MODEL_TELLS, ONLY_THE_READER_TELLS, NOT_YET)
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert set().union(*lists) <= {path.stem for path in BAD}
    assert len(BAD) - sum(map(len, lists)) >= 35


def test_every_example_of_the_grammar_is_valid():
    for name, form in OPERATIONS.items():
        text = f"surgery: v1\noperations:\n  - {name}: {form.example}\n"
        assert is_accepted(text) and read_spec(text).operations


@pytest.mark.parametrize(
    "operation",
    [
        'skip: {layers: ["a[1]", "b.c[:, 3]"]}',
        "skip: a[::2]",
        "skip: a[:5, -1]",
        'skip: "*[1:]"',
        "skip: transformer/a[ 1 , 2 ]",
        "skip: middle",
        'skip: "a[{s+1}:{27-s}]"',
        'skip: "a[-{s}]"',
        "reverse: a[1:3]\n    expect: 2",
        'reverse: a[1:3]\n    when: {timesteps: [0, "{s}"], branch: conditional}',
        'repeat: {layers: "a[1]", times: "{s}"}',
        'repeat: {layers: "a[1]", using: -1}',
        'order: {stack: b.c, as: [0, "1:", ":3", -1, {parallel: [3, 4], combine: sum}]}',
        'replace: {component: ["a[1].b.*", middle.attn1], with: channel_mean}',
    ],
)
def test_what_the_reader_reads_the_schema_accepts(operation):
    text = f"surgery: v1\nvary: {{s: [1]}}\ngroups: {{middle: 'a[1]'}}\noperations:\n  - {operation}\n"
    read_spec(text)
    assert is_accepted(text)


@pytest.mark.parametrize(
    "operation",
    [
        "skip: a[::-1]",
        "skip: a[::0]",
        "skip: a[]",
        "skip: a[1.5]",
        "skip: a[1].b",
        "skip: other/a[1]",
        "skip: 3",
        "skip: []",
        "skp: a[1]",
        "skip: a[1]\n    reverse: a[2]",
        "skip: a[1]\n    expect: 0",
        'repeat: {layers: "a[1]"}',
        'repeat: {layers: "a[1]", times: 2, using: center}',
        'repeat: {layers: "a[1]", times: 1001}',
        'parallel: {layers: "a[1:3]", combine: man}',
        'parallel: {layers: "a[1:3]", loop: 2}',
        'scale: {layers: "a[1]"}',
        "replace: a[1].b",
        'replace: {component: "a[1]", with: zero}',
        'order: {stack: "*", as: [1]}',
        "order: {stack: a, as: []}",
        "expect: 3",
    ],
)
def test_what_the_schema_refuses_the_reader_refuses(operation):
    text = f"surgery: v1\noperations:\n  - {operation}\n"
    assert not is_accepted(text)
    if operation != 'order: {stack: "*", as: [1]}':  # the reader leaves it to the model
        with pytest.raises(SpecError, match=r"^spec.yaml:\d+:\d+: "):
            read_spec(text)


def test_a_mutated_spec_that_the_reader_reads_the_schema_accepts(fuzz):
    """Seeded mutations of all specs, good and bad."""
    sources, num_read = fuzz.read_sources(), 0
    for seed in range(600):
        content = fuzz.mutate(sources, random.Random(seed))
        try:
            read_spec(content)
        except SpecError:
            continue
        num_read += 1
        document = yaml.safe_load(content)
        errors = [error.message for error in VALIDATOR.iter_errors(document) if not is_in_a_case(error)]
        assert errors == [] or is_sly(content) or orders_all_stacks(document), (seed, errors, content)
    assert num_read >= 40


# What the reader says of specs that the schema accepts: names from elsewhere, and what JSON does not tell apart.
UNSEEN = re.compile(
    r'an operation is "[A-Za-z_]\w*"; |'  # it may be a case's name
    "is no group|is in the group a second time|"
    "names components, not layers|names layers; add a component|the component .* can't be used here|"
    r"and rising|at most 9223372036854775807|is -?[\d_]*(\.|\d[eE])[\d.eE+-]*; write an integer"
)


def test_a_mutated_spec_that_the_schema_accepts_has_faults_that_it_can_not_see(fuzz):
    """Without vary, whose templates stand for anything, and as read by the language's own YAML."""
    sources, num_accepted = [source for source in fuzz.read_sources() if "vary" not in source], 0
    for seed in range(600):
        content = fuzz.mutate(sources, random.Random(seed))
        data = data_of(content)
        if not isinstance(data, dict) or "vary" in data or "{" in json.dumps(list(texts_of(data))):
            continue
        if not VALIDATOR.is_valid(data):
            continue
        num_accepted += 1
        faults = faults_of(content)
        assert all(UNSEEN.search(fault) for fault in faults), (seed, faults, content)
    assert num_accepted >= 40


def test_the_law_fails_for_a_schema_that_accepts_all(fuzz, monkeypatch):
    monkeypatch.setitem(globals(), "VALIDATOR", Draft7Validator({}))
    with pytest.raises(AssertionError, match=r"n\.yaml:\d+:\d+: "):
        test_a_mutated_spec_that_the_schema_accepts_has_faults_that_it_can_not_see(fuzz)


def data_of(content: str | bytes) -> object:
    """A document as plain data, read as the language reads it; None where it can't be read."""
    faults = Faults("n.yaml")
    document = read_document(content, faults)
    return None if document is None or faults.found else plain(document)


def plain(value: Value) -> object:
    match value:
        case Scalar(content):
            return content
        case Items(items):
            return [plain(item) for item in items]
        case Entries(entries):
            return {key.text: plain(item) for key, item in entries}


def texts_of(data: object) -> Iterator[str]:
    """All texts within plain data."""
    if isinstance(data, str):
        yield data
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for item in inner:
        yield from texts_of(item)


def faults_of(content: str | bytes) -> list[str]:
    try:
        read_spec(content, file="n.yaml")
    except SpecError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("page", ["README.md", "docs/language.md"])
def test_the_specs_of_the_pages_are_valid(page):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    specs = [block for block in blocks if re.search("^surgery: ", block, re.MULTILINE)]
    assert specs
    for text in specs:
        assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == [], text


def is_in_a_case(error: ValidationError) -> bool:
    """The reader looks at the cases that operations name only, the schema at all."""
    return list(error.absolute_path)[:1] == ["vary"]


def is_sly(content: str | bytes) -> bool:
    """YAML 1.1 reads numbers and words otherwise than the language does: 1e-3 as text, v1 or a title as a date."""
    text = content if isinstance(content, str) else content.decode()
    return re.search(r"\d[eE][-+]?\d|\d{4}-\d\d-\d\d", text) is not None


def orders_all_stacks(document: dict[str, object]) -> bool:
    """`order: {stack: "*"}`: the reader leaves it to the model, the schema refuses it at once."""
    return re.search(r'"order": {[^{}]*"stack": "[^"]*\*', json.dumps(document)) is not None


def test_the_hooks_for_other_repositories_run_commands_that_exist():
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["entry"] for hook in hooks] == ["surgery check", "surgery check --language-only"]
    for hook in hooks:
        assert {"id", "name", "description", "entry", "language", "types", "files"} <= set(hook)
        assert re.search(hook["files"], "models/specs/flux/skip.yaml") and not re.search(hook["files"], "docker.yaml")
        assert not re.search(hook["files"], "specs/schema.json")
