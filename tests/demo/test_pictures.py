"""Training pictures: a thousand emoji, each with a caption of its own."""

from pathlib import Path

import numpy as np
import pytest

from surgery.bundled import DEMO_PROMPTS
from surgery.demo import pictures
from surgery.demo.pictures import LEFT_OUT_WORDS, Emoji, caption_from_name, find_font, list_emoji
from surgery.errors import InputError

WORDS = "abcdefghijklmnopqrstuvwxyz0123456789 "


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("T-Rex", "t rex"),
        (":red apple:", "red apple"),
        ("woman’s hat", "womans hat"),
        ("woman's hat", "womans hat"),
        ("8-ball", "8 ball"),
        ("  Many   spaces ", "many spaces"),
        ("!?", ""),
    ],
)
def test_captions_are_lower_case_words(name, caption):
    assert caption_from_name(name) == caption


@pytest.fixture(scope="module")
def emoji():
    pytest.importorskip("emoji", reason="needs the train extra")
    return list_emoji()


def test_there_are_about_a_thousand_with_captions_of_their_own(emoji):
    captions = [item.caption for item in emoji]
    assert 900 < len(emoji) < 1300
    assert len(set(captions)) == len(captions)
    assert len({item.character for item in emoji}) == len(emoji)


def test_captions_hold_words_alone_and_none_that_is_left_out(emoji):
    for item in emoji:
        assert item.caption and set(item.caption) <= set(WORDS)
        assert LEFT_OUT_WORDS.isdisjoint(item.caption.split())
        assert caption_from_name(item.caption) == item.caption


def test_every_prompt_of_the_demo_was_learned(emoji):
    assert set(DEMO_PROMPTS) <= {item.caption for item in emoji}


def test_a_missing_font_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(pictures, "FONT_PATHS", (Path("/nowhere/at/all/NotoColorEmoji.ttf"),))
    with pytest.raises(InputError, match=r"in none of /nowhere/at/all; install it .*fonts-noto-color-emoji"):
        find_font()


def test_the_first_font_that_exists_is_taken(monkeypatch, tmp_path):
    font = tmp_path / "NotoColorEmoji.ttf"
    font.touch()
    monkeypatch.setattr(pictures, "FONT_PATHS", (tmp_path / "absent.ttf", font, Path(__file__)))
    assert find_font() == font


def test_pictures_that_the_font_lacks_or_repeats_are_left_out(monkeypatch):
    drawn = {"a": 1, "b": 2, "c": None, "d": 1}
    monkeypatch.setattr(pictures, "find_font", lambda: "font")
    monkeypatch.setattr(pictures.ImageFont, "truetype", lambda *_: None)
    monkeypatch.setattr(pictures, "list_emoji", lambda: [Emoji(character, character * 2) for character in drawn])
    monkeypatch.setattr(
        pictures,
        "draw_emoji",
        lambda character, _: None if drawn[character] is None else np.full((64, 64, 3), drawn[character]),
    )
    kept, pixels = pictures.load_pictures()
    assert [item.caption for item in kept] == ["aa", "bb"]
    assert (pixels.shape, pixels.dtype) == ((2, 64, 64, 3), np.uint8)
