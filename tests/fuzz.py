"""Mutated specs against the language: each is a plan, or messages with places, quickly and in little memory.

`python tests/fuzz.py --count 100000 --seed 0` prints how many were tried, the slowest and the peak of memory, and stops
at the first that breaks the rule, writing it down. The tests run a bounded number through the same code.
"""

import argparse
import random
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml
from anatomies import sd3

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.known import recall_demo
from surgery.errors import NotYetError, SpecError
from surgery.plan.lower import lower_spec
from surgery.spec.grammar import BESIDE, KEYS, OPERATIONS, ORDER_GROUP, WHEN
from surgery.spec.load import read_spec

ROOT = Path(__file__).parents[1]
MAX_SECONDS = 2.0
MAX_BYTES = 500_000_000
PLACED = re.compile(r"fuzz\.yaml:\d+:\d+: .+")

FIELDS = {name for form in OPERATIONS.values() for name in form.fields}
WORDS = [
    *KEYS,
    *OPERATIONS,
    *FIELDS,
    *BESIDE,
    *WHEN,
    *ORDER_GROUP,
    "center",
    "mean",
    "sum",
    "zero",
    "input",
    "v1",
    "demo",
]
SELECTORS = (
    *("transformer_blocks[0]", "transformer_blocks[:]", "transformer_blocks[-1]", "transformer_blocks[4:15]"),
    *(
        "transformer_blocks[::2]",
        "transformer_blocks[9:4]",
        "transformer_blocks[99]",
        "*[2:5]",
        "middle",
        "middle.attn1",
    ),
    *(
        "transformer_blocks[2].attn",
        "transformer_blocks[2:5].*",
        "transformer_2/transformer_blocks[1]",
        "p.safetensors#m",
    ),
    *(
        "transformer_blocks[{s+1}:{27-s}]",
        "transformer_blocks[0, 0]",
        "transformer_blocks[1",
        "single_transformer_blocks[0]",
    ),
)
SCALARS = (
    *(
        "0",
        "1",
        "-1",
        "3",
        "1000",
        "1001",
        "99999999",
        "9" * 400,
        "0x" + "f" * 300,
        "0.5",
        "-2.5",
        "1e-3",
        "1e999",
        ".nan",
    ),
    *(
        ".inf",
        "true",
        "no",
        "~",
        '""',
        "''",
        "[]",
        "{}",
        "1:30",
        "5:8",
        "2001-01-01",
        "{s}",
        '"{s//0}"',
        '"{s**9}"',
        "'*'",
    ),
    *(
        "&a x",
        "*a",
        "&a [*a]",
        "!!binary aGk=",
        "!!set {a}",
        "!x y",
        "|",
        ">",
        "- -",
        "? x",
        "<<",
        "@",
        "`",
        "%",
        "\t",
        "\ufeff",
    ),
    *("²", "٣", "\u2028", "\x85", "\x07", "😀", "[" * 300, "{-" * 40, "&a [1]\n  b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]"),
)


FURTHER_SOURCES = (  # what the specs that are checked in have little of: sweeps, windows, groups, aliases
    """surgery: v1
model: demo
vary:
  s: range(0, 5)
  w: [1, 2.5, zero]
  l: transformer_blocks[2:5]
  case:
    skip: [{skip: "transformer_blocks[{s+1}:{11-s}]"}]
    looped: [{parallel: {layers: "transformer_blocks[{s+1}:{11-s}]", loops: "{s+1}"}}]
    ablate: [{replace: {component: "transformer_blocks[{s}].attn", with: zero}, expect: 1}]
cumulative: s
operations: [case]
""",
    """surgery: v1
operations:
  - skip: &one transformer_blocks[1]
    when: {timesteps: [0.0, 0.3], branch: conditional}
  - scale: {layers: "transformer/transformer_blocks[2:4]", by: 1.5}
    when: {branch: unconditional}
  - reverse: *one
""",
    """surgery: v1
profile: means.safetensors
groups:
  middle: transformer_blocks[4:8]
  ends: ["transformer_blocks[0]", "transformer_blocks[-2]"]
operations:
  - parallel: {layers: middle, loops: 2, combine: sum}
  - scale: {layers: [middle, ends], by: 0.5}
  - replace: {component: ends.attn, with: input}
  - skip: ends
    expect: 2
""",
)


def read_sources() -> list[str]:
    """The specs that are mutated: all that are checked in, good and bad, and some more, often enough to count."""
    paths = [*sorted((ROOT / "specs").rglob("*.yaml")), *sorted((ROOT / "tests" / "messages").glob("*.yaml"))]
    return [*(path.read_bytes().decode("utf-8", "replace") for path in paths), *FURTHER_SOURCES * 10]


def load_anatomies() -> dict[str, Anatomy]:
    """The bundled model and a model with SD3's stack: two streams, and a last block of another kind."""
    return {"demo": recall_demo(), "sd3": sd3()}


def mutate(sources: list[str], rng: random.Random) -> str | bytes:
    """One spec, good ones preferred, with edits of characters, words, lines or values, now and then of bytes."""
    good = [text for text in sources if not text.startswith("# anatomy: ")]
    text = rng.choice(sources if rng.random() < 0.3 else good)
    for _ in range(rng.randint(1, 3)):
        edit = rng.choice((edit_characters, edit_words, edit_lines, edit_values, edit_values))
        text = edit(text, sources, rng)
    if rng.random() < 0.9:
        return text
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.randint(1, 3)):
        content.insert(rng.randint(0, len(content)), rng.randrange(256))
    return bytes(content)


def edit_characters(text: str, sources: list[str], rng: random.Random) -> str:
    """Cut, double or replace a few characters."""
    start = rng.randint(0, len(text))
    end = min(len(text), start + rng.randint(0, 12))
    return (
        text[:start]
        + rng.choice(("", text[start:end] * 2, rng.choice(SCALARS), chr(rng.randrange(0x10FFFF))))
        + text[end:]
    )


def edit_words(text: str, sources: list[str], rng: random.Random) -> str:
    """Replace one word or number by another of the language."""
    words = list(re.finditer(r"[\w.]+", text))
    if not words:
        return text
    word = rng.choice(words)
    other = rng.choice((*WORDS, str(rng.randint(-3, 40)), rng.choice(SCALARS)))
    return text[: word.start()] + other + text[word.end() :]


def edit_lines(text: str, sources: list[str], rng: random.Random) -> str:
    """Drop, double, indent or splice a line, or take one of another spec."""
    lines = text.split("\n")
    number = rng.randrange(len(lines))
    other = rng.choice(rng.choice(sources).split("\n"))
    middle = rng.choice(
        ([], [lines[number]] * 2, [" " * rng.randint(1, 4) + lines[number]], [other], [lines[number], other])
    )
    return "\n".join([*lines[:number], *middle, *lines[number + 1 :]])


def edit_values(text: str, sources: list[str], rng: random.Random) -> str:
    """Change one value somewhere in the tree, or put another operation there."""
    try:
        tree = yaml.safe_load(text)
        return yaml.safe_dump(edit_tree(tree, rng), sort_keys=False) if isinstance(tree, dict) else text
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError, AttributeError):
        return text


def edit_tree(tree: object, rng: random.Random) -> object:
    """The tree with one change on a random way down."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        if rng.random() < 0.1:
            return {**{name: value for name, value in tree.items() if name != key}, rng.choice(WORDS): tree[key]}
        return {**tree, key: edit_tree(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        number = rng.randrange(len(tree))
        if rng.random() < 0.3:
            return [*tree[:number], *rng.choice(([], [make_operation(rng)], tree[number:] * 2)), *tree[number:]]
        return [*tree[:number], edit_tree(tree[number], rng), *tree[number + 1 :]]
    return rng.choice(
        (None, rng.randint(-3, 40), rng.random(), rng.choice(SELECTORS), rng.choice(WORDS), make_operation(rng))
    )


def make_operation(rng: random.Random) -> dict[str, object]:
    """A likely operation with fields of any kind."""
    name = rng.choice(list(OPERATIONS))
    selector: object = rng.choice((rng.choice(SELECTORS), [rng.choice(SELECTORS), rng.choice(SELECTORS)]))
    fields: dict[str, object] = {"layers": selector, "component": selector, "stack": "transformer_blocks"}
    fields |= {
        "times": rng.randint(0, 4),
        "using": rng.choice(("center", 3)),
        "loops": rng.randint(0, 3),
        "seed": 1,
        "by": 0.5,
    }
    fields |= {
        "with": rng.choice(("zero", "input", "mean")),
        "as": ["0:4", 5, {"parallel": [6, 7]}, rng.randint(-9, 30)],
    }
    chosen = {field: fields[field] for field in OPERATIONS[name].fields if field in fields and rng.random() < 0.8}
    beside = {"expect": rng.randint(0, 12)} if rng.random() < 0.2 else {}
    return {name: rng.choice((chosen, selector)), **beside}


def outcome_of(content: str | bytes, anatomies: Mapping[str, Anatomy]) -> str:
    """plan, faults or not yet. Raises AssertionError where a message has no place, and whatever else goes wrong."""
    outcome = "plan"
    for anatomy in anatomies.values():
        try:
            lower_spec(read_spec(content, file="fuzz.yaml"), anatomy)
        except (SpecError, NotYetError) as error:
            lines = str(error).splitlines()
            assert lines, "there is an error without a message"
            assert all(PLACED.fullmatch(line) for line in lines), f"a message has no place: {lines}"
            str(error).encode()
            outcome = "not yet" if isinstance(error, NotYetError) else "faults"
    return outcome


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Try `--count` specs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("out/fuzz.yaml"), help="where a spec that breaks the rule goes"
    )
    options = parser.parse_args()
    sources, anatomies, slowest, seen = read_sources(), load_anatomies(), 0.0, Counter[str]()
    for number in range(options.count):
        content = mutate(sources, random.Random(f"{options.seed}/{number}"))
        started = time.process_time()
        try:
            seen[outcome_of(content, anatomies)] += 1
            seconds = time.process_time() - started
            assert seconds <= MAX_SECONDS, f"it took {seconds:.1f} s"
            assert peak_bytes() <= MAX_BYTES, f"it took {peak_bytes() / 1e6:.0f} MB"
        except BaseException:
            options.keep.parent.mkdir(parents=True, exist_ok=True)
            options.keep.write_bytes(
                content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
            )
            print(f"spec {number} of seed {options.seed} breaks the rule; it is in {options.keep}", file=sys.stderr)
            raise
        slowest = max(slowest, seconds)
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in seen.most_common())
    print(f"{sum(seen.values()):,} specs: {counts}; slowest {slowest:.2f} s, peak {peak_bytes() / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
