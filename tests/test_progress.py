"""What long runs show: a bar on a terminal, a line now and then in a log, nothing when quiet."""

import sys

import pytest
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from surgery import progress
from surgery.progress import library_bars, quietly, say_stage, show_progress


class Clock:
    """The time of a test, in seconds."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 15.0)
    return clock


def draw(clock, *, total=100, seconds_each=1.0, **options):
    with show_progress(total, unit="picture", label="drawing", **options) as meter:
        for number in range(total - options.get("done", 0)):
            meter.note(f"row {number}")
            clock.now += seconds_each
            meter.advance(1)


def test_a_log_gets_a_line_now_and_then_with_the_time_left_and_a_last_one(clock, capsys):
    draw(clock, total=40)
    assert capsys.readouterr().err.splitlines() == [
        "drawing: 15 of 40 pictures, 15 s, about 25 s left (row 14)",
        "drawing: 30 of 40 pictures, 30 s, about 10 s left (row 29)",
        "drawing: 40 pictures in 40 s",
    ]


def test_a_log_grows_with_time_and_not_with_work(clock, capsys):
    draw(clock, total=10_000, seconds_each=0.01)
    assert len(capsys.readouterr().err.splitlines()) == 100 // progress.SECONDS_BETWEEN_LINES + 1


def test_what_an_earlier_run_has_done_is_not_counted_as_speed(clock, capsys):
    draw(clock, total=40, done=20)
    assert capsys.readouterr().err.splitlines() == [
        "drawing: 35 of 40 pictures, 15 s, about 5 s left (row 14)",
        "drawing: 20 pictures in 20 s",
    ]


def test_a_note_is_a_sign_of_life_while_nothing_is_done(clock, capsys):
    with show_progress(1_000_000, unit="B", label="writing") as meter:
        clock.now += 16
        meter.note("step 3")
        meter.advance(1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "writing: 0.0 MB of 1.0 MB, 16 s (step 3)",
        "writing: 1.0 MB in 16 s",
    ]


def test_a_short_run_leaves_no_line_in_a_log(clock, capsys):
    draw(clock, total=4)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(2, unit="picture", label="drawing") as meter:
        meter.note("baseline")
        meter.advance(2)
    assert "drawing: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("on_terminal", [False, True])
def test_quiet_is_quiet_wherever_it_is(on_terminal, clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    with quietly(), quietly(False):  # what is within a quiet run is quiet as well
        draw(clock)
        say_stage("1 of 3")
    assert capsys.readouterr().err == ""
    say_stage("2 of 3")
    assert capsys.readouterr().err == "2 of 3\n"


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_run_that_fails_says_nothing_of_being_done(on_terminal, clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    with pytest.raises(KeyboardInterrupt, match="now"), show_progress(2, unit="step", label="measuring") as meter:
        clock.now += 60
        meter.advance(1)
        raise KeyboardInterrupt("now")
    assert "in 60 s" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("on_terminal", "quiet", "shown"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_libraries_show_their_bars_on_a_terminal_only(on_terminal, quiet, shown, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    libraries = (diffusers_logging, transformers_logging)
    before = [library.is_progress_bar_enabled() for library in libraries]
    assert before == [True, True]
    with quietly(quiet), library_bars():
        assert [library.is_progress_bar_enabled() for library in libraries] == [shown, shown]
    assert [library.is_progress_bar_enabled() for library in libraries] == before
