"""The page in headless Chromium: opens from a file, sorts, has both themes, fits a phone. `make test-page` runs it.

A script that is added to a copy of the page does what a reader would, and leaves what it saw in the title.
"""

import html
import json
import re
import shutil
import subprocess

import pytest
from swept_evaluations import NUM, document_of, single_layers, write_swept

from surgery.report.evaluated import read_measured
from surgery.report.page import make_report, render_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE_PX, DESK_PX = 390, 1280
DARK = "--blink-settings=preferredColorScheme=0"
SECONDS = 120

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; `apt-get install chromium` brings it"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rows = single_layers(6, ("attn1", "attn2", "ff"), lambda layer, part: 0.01 * (7 * layer % 5) + 0.002 * len(part))
    folder = write_swept(tmp_path_factory.mktemp("swept"), document_of(rows), pictures=NUM, pixels=64)
    return render_page(make_report(read_measured(folder / "evaluation.json"), folder))


@pytest.fixture
def seen(tmp_path):
    """A function: HTML and a script that returns something -> that, and what the console said."""

    def look(page, script, *options):
        found = f"<script>addEventListener('load', () => {{ document.title = JSON.stringify((() => {{{script}}})()) }})"
        file = tmp_path / "page.html"
        file.write_text(page + found + "</script>")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={DESK_PX},900", *options, file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
        title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
        return json.loads(html.unescape(title)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return look


def in_phone(page):
    """The page within a frame as wide as a phone, in a page that may look into it."""
    return f'<title></title><iframe id="phone" width={PHONE_PX} height=800 srcdoc="{html.escape(page)}"></iframe>'


def test_it_opens_from_a_file_without_a_word_on_the_console(page, seen):
    shown = "return [document.querySelectorAll('figure svg').length, document.querySelectorAll('tbody tr').length > 18]"
    (figures, has_rows), said = seen(page, shown)
    assert figures == page.count("<figure>") > 6 and has_rows and said == []


def test_the_console_is_heard(page, seen):
    _, said = seen(page, "fetch('http://127.0.0.1:9/').catch(() => {}); return 1")
    assert any("Content Security Policy" in line for line in said), "the page may ask nobody for anything"


def test_a_click_on_a_head_sorts_up_and_another_down_with_empty_cells_last(page, seen):
    script = """
      const table = document.getElementById("rank-table"), button = table.querySelectorAll("thead button")[2];
      const values = () => [...table.tBodies[0].rows].map(row => row.cells[2].dataset.value);
      const found = [values()];
      button.click(); found.push(values()); button.click(); found.push(values());
      return [found, button.parentNode.getAttribute("aria-sort")];
    """
    ((ranked, up, down), order), said = seen(page, script)
    numbers = sorted(float(value) for value in ranked if value)
    assert [float(value) for value in up if value] == numbers
    assert [float(value) for value in down if value] == numbers[::-1]
    num_empty = ranked.count("")
    assert num_empty and up[-num_empty:] == down[-num_empty:] == [""] * num_empty
    assert (order, said) == ("descending", [])


@pytest.mark.parametrize(("options", "is_dark"), [((), False), ((DARK,), True)], ids=["light", "dark"])
def test_text_and_curves_stand_out_from_the_paper_in_both_themes(page, seen, options, is_dark):
    """Luminance as WCAG 2 has it: texts of figures 7 to 1 or more, others 4.5, curves 2.5 to 1."""
    script = """
      const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g)
        .map(v => text.startsWith("color(") ? +v : v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      const apart = (color) => { const own = light(color);
        return (Math.max(own, paper) + .05) / (Math.min(own, paper) + .05); };
      const all = (query, name) => [...document.querySelectorAll(query)].map(node => getComputedStyle(node)[name])
        .filter(color => color !== "none").map(apart);
      return [paper, Math.min(...all("p, td, h2, figure text", "color")), Math.min(...all("figure text", "fill")),
        Math.min(...all("figure use[style*='--line']", "stroke"), 99), all("figure use", "stroke").length,
        Math.min(...all(".schedule text", "fill"))];
    """
    (paper, text, labels, curves, num, schedules), said = seen(page, script, *options)
    assert (paper < 0.1) == is_dark and num > 50 and said == []
    assert text >= 4.5 and labels >= 7 and curves >= 2.5 and schedules >= 4.5


def test_on_a_phone_nothing_scrolls_sideways_but_what_is_meant_to(page, seen):
    """Opened whole: every part is unfolded."""
    script = """
      const inner = document.getElementById("phone").contentDocument;
      inner.querySelectorAll("details").forEach(node => { node.open = true; });
      const root = inner.documentElement;
      return [root.scrollWidth, root.clientWidth, inner.querySelectorAll(".wide").length > 3,
        Math.min(...[...inner.querySelectorAll("figure svg")].map(node => node.clientWidth))];
    """
    (width, room, has_tables, narrowest), said = seen(in_phone(page), script)
    assert width <= room <= PHONE_PX and has_tables and said == []
    assert narrowest > 300, "figures take the width there is"
    wide = page.replace("overflow-x: auto", "overflow-x: visible")
    assert seen(in_phone(wide), script)[0][0] > PHONE_PX, "this test sees what does not fit"


def test_a_link_to_a_variant_unfolds_it_and_without_scripts_all_is_there(page, seen):
    script = "location.hash = 'variant-3'; dispatchEvent(new Event('hashchange')); return variant_3.open".replace(
        "variant_3", "document.getElementById('variant-3')"
    )
    assert seen(page, script) == (True, [])
    without = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert without.count("<td") == page.count("<td") > 100
