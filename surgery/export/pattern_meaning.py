r"""A pattern of a config -> the names that its author means by it, where numbers are whole numbers of blocks.

Both `fnmatch` and `re` read characters: `[10-27]` stands for one of 0, 1, 2, 7, and `blocks.1*` (or, as a regular
expression, `blocks.1.*`) takes blocks 10 to 19 as well. Who writes such a pattern means blocks 10 to 27, and block 1.
"""

import math
import re
from collections.abc import Iterable
from fnmatch import translate
from functools import cache

from surgery.errors import InputError

LISTED = r"\d{1,5}(?:-\d{1,5})?(?:\s*[,|]\s*\d{1,5}(?:-\d{1,5})?)*"  # 10-27, 0-3,7
RANGE_OF_NUMBERS = re.compile(rf"\[(?=[^\]]*(?:\d\d-|-\d\d))({LISTED})\]")
WHOLE_NUMBER = {  # `use_fnmatch` -> digits, or a class of them, that are all of a part of a name
    True: re.compile(r"(?<=\.)(?:\d+|\[[\d-]+\])(?=[.*]|$)"),
    False: re.compile(r"(?<=\.)(?:\d+|\[[\d-]+\])(?=\\?\.|$)"),
}
MOST_NUMBERS = 10_000  # in a range that is taken for one
MOST_PATTERNS = 20_000  # that one pattern is written out to
HELD = "\ue000"  # stands for a range while a pattern is translated; in no name, and of no meaning to `re`


@cache
def meant_expression(pattern: str, *, use_fnmatch: bool) -> re.Pattern[str]:
    """The expression of all names that are meant; raises InputError where the pattern is no regular expression."""
    ranges: list[str] = []

    def hold(token: re.Match[str]) -> str:
        numbers = numbers_of(token[1])
        if not numbers:
            return token[0]
        ranges.append("|".join(map(str, numbers)))
        return HELD

    whole = WHOLE_NUMBER[use_fnmatch].sub(lambda token: token[0] + HELD + HELD, RANGE_OF_NUMBERS.sub(hold, pattern))
    expression = translate(whole) if use_fnmatch else whole
    expression = expression.replace(HELD + HELD, r"(?!\d)")
    for numbers in ranges:
        expression = expression.replace(HELD, rf"(?<!\d)(?:{numbers})(?!\d)", 1)
    return compile_expression(expression, pattern)


def compile_expression(expression: str, pattern: str) -> re.Pattern[str]:
    """Raises InputError, which names the pattern, where it is no regular expression."""
    try:
        return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f'the pattern "{pattern}" is no regular expression: {error}') from None


def numbers_of(listed: str) -> list[int]:
    """The numbers of `0-3,10-27`; none where a range runs backwards or is no range of blocks."""
    found: set[int] = set()
    for part in re.split(r"[,|]", listed):
        first, _, last = part.strip().partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or len(numbers) > MOST_NUMBERS:
            return []
        found.update(numbers)
    return sorted(found)


def ranges_in(pattern: str) -> list[str]:
    """The parts of a pattern that are written as ranges of numbers and stand for single characters."""
    return [token[0] for token in RANGE_OF_NUMBERS.finditer(pattern) if numbers_of(token[1])]


def spell_meaning(pattern: str, *, use_fnmatch: bool) -> list[str]:
    """The patterns that take what one is meant to take, to those who read characters: one, or several for a range."""
    token = next((token for token in RANGE_OF_NUMBERS.finditer(pattern) if numbers_of(token[1])), None)
    if token is None:
        return [_with_whole_numbers(pattern, use_fnmatch=use_fnmatch)]
    spelled = spell_numbers(numbers_of(token[1]))
    if not use_fnmatch:
        spelled = [f"(?:{'|'.join(spelled)})" + r"(?!\d)"]
    before, after = pattern[: token.start()], pattern[token.end() :]
    ranges = [len(spell_numbers(numbers_of(found[1]))) for found in RANGE_OF_NUMBERS.finditer(pattern)]
    if use_fnmatch and math.prod(filter(None, ranges)) > MOST_PATTERNS:
        raise InputError(f'the ranges of "{pattern}" are over {MOST_PATTERNS:,} patterns; write smaller ones')
    return [found for digits in spelled for found in spell_meaning(before + digits + after, use_fnmatch=use_fnmatch)]


def _with_whole_numbers(pattern: str, *, use_fnmatch: bool) -> str:
    if not use_fnmatch:
        return WHOLE_NUMBER[False].sub(lambda token: token[0] + r"(?!\d)", pattern)
    return re.sub(r"(?<=\.)((?:\d|\[[\d-]+\])+)(?=\*)", r"\1.", pattern)


def spell_numbers(numbers: Iterable[int]) -> list[str]:
    """10 to 27 as `1[0-9]`, `2[0-7]`: patterns of characters that are exclusive of each other."""
    by_start: dict[str, list[int]] = {}
    for number in sorted(set(numbers)):
        by_start.setdefault(str(number)[:-1], []).append(number % 10)
    return [start + _class_of(digits) for start, digits in by_start.items()]


def _class_of(digits: list[int]) -> str:
    if len(digits) == 1:
        return str(digits[0])
    parts = "".join(run.replace(" to ", "-") for run in number_runs(digits))
    return f"[{parts}]"


def number_runs(numbers: Iterable[int]) -> list[str]:
    """`0 to 3`, `7`: numbers in words."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
