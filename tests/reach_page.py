"""What was found of the classes of diffusers, as a page: the counts, a table with a row a stack, and the reasons."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import diffusers

SAME, REPLACE = "same", "replace"
INTRODUCTION = """# Reach

Every transformer class of diffusers {version}, as a tiny model with random weights, one row a stack: what `make reach`
writes. Its counts are those of the [README](../README.md#what-a-variant-is).

* `known`: whence a call of the class is known without weights: a row by hand, a row that was found and ships, the
  config alone, one recorded call, or not at all.
* `traced`, `s`: how its forward is traced, and in how many seconds.
* `same` is the rewritten graph of no operation. It and the operations equal the edit by hand, to the bit (`parallel`
  up to rounding). `replace` is how many components were replaced as by a forward hook, to the bit, of those offered.
* `on disk`: a checkpoint is written, and the stock class computes with it what the graph does, to the bit. Where
  nothing stands, it was not tried.
* `refused`: the reason is below the table. `no hand edit`: the edit by hand can't follow what the forward does around
  its blocks; there is nothing to compare the graph with.
"""


@dataclass
class Row:
    """What was found of one stack of one class; `answers` by operation, `reasons` of those that are refused."""

    class_name: str
    stack: str = ""
    known: str = ""
    traced: str = ""
    seconds: float = 0.0
    answers: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """The operations that are neither right nor refused."""
        return [name for name, answer in self.answers.items() if not is_right(answer)]

    def refuse(self, operation: str, reason: str) -> None:
        """Note that an operation is refused, and why: in one line, without the folders of files."""
        self.answers[operation] = "refused"
        self.reasons[operation] = re.sub(r"[^\s:`]*/(?=[\w.]+:\d)", "", " ".join(reason.split()))


def rows_of(page: str) -> list[Row]:
    """The rows that a page tells of: what `page_of` wrote."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| class |"))
    columns = _cells(lines[start])[5:]
    rows = []
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :]):
        name, stack, known, traced, seconds, *answers = _cells(line)
        said = {column: answer for column, answer in zip(columns, answers, strict=True) if answer}
        rows.append(Row(name, stack, known, traced, float(seconds), said))
    by_stack = {f"{row.class_name} {row.stack}": row for row in rows}
    for line in lines[start + 2 + len(rows) :]:
        where, _, said_of = line.removeprefix("* ").partition(": ")
        operations, _, reason = said_of.partition(": ")
        if reason:
            by_stack[where].reasons.update(dict.fromkeys(operations.split(", "), reason))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def is_right(answer: str) -> bool:
    """Whether an answer tells of what is as it should be, or refused."""
    equal, _, offered = answer.partition(" of ")
    return answer in ("yes", "refused", "no hand edit") or (offered != "" and equal == offered)


def page_of(rows: Sequence[Row]) -> str:
    """The page, in Markdown."""
    parts = (
        INTRODUCTION.format(version=diffusers.__version__).splitlines(),
        [f"* {line}" for line in counts_of(rows)],
        table_of(rows),
        [f"* {line}" for line in reasons_of(rows)],
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def counts_of(rows: Sequence[Row]) -> Iterator[str]:
    """The counts, by class: a class is as good as the worst of its stacks."""
    classes: dict[str, list[Row]] = {}
    for row in rows:
        classes.setdefault(row.class_name, []).append(row)
    operations = [name for name in _columns(rows) if name != REPLACE and not name.endswith("on disk")]
    yield (
        f"{len(classes)} classes: {_count(classes, [SAME])} run the unedited graph to the bit, "
        f"{sum(found[0].traced.startswith('whole') for found in classes.values())} traced whole, "
        f"{_count(classes, operations)} with all operations of all stacks equal, "
        f"{sum(_is_equal_or_refused(found, operations) for found in classes.values())} more with those of some stacks, "
        f"where the others are refused"
    )
    counted = [
        tuple(map(int, answer.split(" of ")))
        for row in rows
        if " of " in (answer := row.answers.get(REPLACE, "")) and answer[:1].isdigit()
    ]
    offering = {row.class_name for row in rows if " of " in row.answers.get(REPLACE, "")}
    equal, offered = (sum(numbers) for numbers in zip(*counted, strict=True)) if counted else (0, 0)
    yield f"replace: on {len(offering)} classes, {equal:,} of {offered:,} components"
    known = Counter(found[0].known or "no" for found in classes.values())
    yield "known: " + ", ".join(f"{whence} {number}" for whence, number in known.most_common())
    for column in _columns(rows):
        if column.endswith("on disk"):
            tried = sum(any(column in row.answers for row in found) for found in classes.values())
            yield f"{column}: {_count(classes, [column])} in all stacks, of {tried} classes that were tried"
    yield f"wrong: {', '.join(name for name, found in classes.items() if any(row.faults for row in found)) or 'none'}"


def _count(classes: dict[str, list[Row]], columns: Sequence[str]) -> int:
    """How many classes have nothing but `yes` in these columns, in all their stacks."""
    answers = ({row.answers.get(column) for row in found for column in columns} for found in classes.values())
    return sum(found == {"yes"} for found in answers)


def _is_equal_or_refused(found: Sequence[Row], columns: Sequence[str]) -> bool:
    """Whether some stacks of a class have nothing but `yes`, and all others nothing but `refused` save unedited."""
    edits = [name for name in columns if name != SAME]
    answers = [{row.answers.get(column) for column in edits} for row in found]
    return {"yes"} in answers and {"refused"} in answers and all(said in ({"yes"}, {"refused"}) for said in answers)


def table_of(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table."""
    columns = _columns(rows)
    yield "| class | stack | known | traced | s | " + " | ".join(columns) + " |"
    yield "|" + "---|" * (5 + len(columns))
    for row in rows:
        answers = " | ".join(row.answers.get(column, "") for column in columns)
        yield f"| {row.class_name} | {row.stack} | {row.known} | {row.traced} | {row.seconds:.2f} | {answers} |"


def reasons_of(rows: Sequence[Row]) -> Iterator[str]:
    """Why what is refused is; each reason once a stack."""
    for row in rows:
        for reason in dict.fromkeys(row.reasons.values()):
            named = ", ".join(operation for operation, said in row.reasons.items() if said == reason)
            yield f"{row.class_name} {row.stack}: {named}: {reason}"


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.answers))
