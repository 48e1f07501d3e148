"""The page holds what the evaluation holds, and nothing else is needed to read it: no request leaves it."""

import base64
import csv
import io
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from PIL import Image
from swept_evaluations import ERROR, NUM, SCORE, SSIM, document_of, single_layers, variant, write_swept

from surgery.report.evaluated import measured_from_json, read_measured
from surgery.report.page import make_report, render_page
from surgery.report.picture_grids import NUM_FIXED, NUM_WORST, read_grids
from surgery.report.ranking import interval_text
from surgery.report.sweep_forms import forms_of
from surgery.report.what_matters import findings_of, layer_sets, runs_text

LAYERS, COMPONENTS = 6, ("attn1", "ff")
HOSTILE = '"><script src=http://evil.example/x.js></script><img src=http://evil.example/a.png>'
VOID = {"meta", "link", "img", "br", "path", "rect", "use", "input"}


def u_shape(layer, component):
    """Damage at both ends of the stack, more of ff."""
    return 0.02 + (0.4 if layer in (0, LAYERS - 1) else 0.0) + (0.1 if component == "ff" else 0.0)


class Reader(HTMLParser):
    """What a browser would fetch or follow, which elements are open at the end, the ids, the cells of the ranks."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.scripts, self.rows, self.wrong = [], [], [], 0, [], []
        self.in_ranks = self.in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [
            (tag, name, value) for name, value in found.items() if name in ("src", "href", "xlink:href", "srcset")
        ]
        self.ids += [found["id"]] if "id" in found else []
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)
        self.in_ranks = found.get("id") == "rank-table" or self.in_ranks
        if self.in_ranks and tag == "tr":
            self.rows.append([])
        if self.in_ranks and tag in ("td", "th"):
            self.in_cell = True
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} at {self.getpos()}")
        self.in_cell = self.in_cell and tag not in ("td", "th")
        self.in_ranks = self.in_ranks and tag != "table"

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


def leaving(text):
    """What of a page is fetched from, or leads, elsewhere."""
    found = [value for _, _, value in Reader(text).links if not re.match(r"#|data:", value)]
    return found + re.findall(r"url\((?!#)[^)]*\)|@import|https?://[^\s\"'<)]*", re.sub(r"data:[^\"']*", "", text))


def faults(text):
    """What is not well formed: elements, ids, links within."""
    found = Reader(text)
    targets = {value[1:] for _, _, value in found.links if value.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", text))
    twice = sorted({one for one in found.ids if found.ids.count(one) > 1})
    return [*found.wrong, *found.open, *twice, *sorted(targets - set(found.ids))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rows = single_layers(LAYERS, COMPONENTS, u_shape)
    rows[0]["name"] = HOSTILE
    document = document_of(rows, notes=["a note"], prompts=[HOSTILE, *(f"prompt {n}" for n in range(1, NUM))])
    return write_swept(tmp_path_factory.mktemp("swept"), document, pictures=NUM, pixels=300)


@pytest.fixture(scope="module")
def report(folder):
    return make_report(read_measured(folder / "evaluation.json"), folder)


@pytest.fixture(scope="module")
def page(report):
    return render_page(report)


def test_no_request_leaves_the_page_and_what_others_wrote_is_text(page):
    assert leaving(page.replace("http://evil.example", "")) == []
    assert Reader(page).scripts == 1 and "<script src" not in page
    assert "default-src 'none'" in page


def test_the_page_is_well_formed(page):
    assert faults(page) == []


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (lambda page: page.replace("data:image/webp", "http://x.example/webp", 1), leaving),
        (lambda page: page.replace("</style>", "@import 'x';</style>", 1), leaving),
        (lambda page: page.replace("</section>", "", 1), faults),
        (lambda page: page.replace('id="variant-1"', 'id="variant-2"', 1), faults),
    ],
    ids=["a picture elsewhere", "a style elsewhere", "an open section", "an id twice"],
)
def test_a_saboteur_is_seen(page, broken, check):
    clean = page.replace("http://evil.example", "")
    assert check(clean) == [] and check(broken(clean)) != []


def test_the_numbers_are_those_of_the_evaluation(page, report):
    """In the table, from the best to the worst, and in the CSV, to the last digit."""
    measured = report.measured
    head, *rows = Reader(page).rows
    assert [text.split()[0] for text in head[2:5]] == ["denoising", "text", "SSIM"]
    assert len(rows) == len(measured.rows)
    errors = []
    for cells in rows:
        row = measured.find(cells[1])
        for text, name in zip(cells[2:5], (ERROR, SCORE, SSIM), strict=True):
            number = row.numbers.get(name)
            assert text.rstrip(" ▼▲") == ("–" if number is None else interval_text(number)), (cells[1], name)
        errors += [row.numbers[ERROR].value] if row.kind == "variant" else []
    assert errors == sorted(errors) and len(errors) == LAYERS * len(COMPONENTS)
    content = base64.b64decode(report.csv_link.partition("base64,")[2]).decode()
    lines = list(csv.DictReader(io.StringIO(content)))
    assert len(lines) == sum(len(row.numbers) for row in measured.rows)
    for line in lines:
        number = measured.find(line["name"]).numbers[line["metric"]]
        assert (float(line["value"]), float(line["low"]), int(line["N"])) == (number.value, number.low, number.num)
    point = next(line for line in lines if line["name"] == "each layer=3 component=ff")
    assert (point["layer"], point["component"]) == ("3", "ff")


def test_every_curve_stands_where_its_numbers_are(report):
    """A curve of the page has a marker for each layer, at a height that goes down as the number goes up."""
    svg = str(report.metrics[0].drawings[0].svg)
    groups = [re.findall(r'<use [^>]*x="([-\d.]+)" y="([-\d.]+)"[^>]*var\(--line-(\d)\)', svg)][0]
    for number, component in enumerate(COMPONENTS):
        heights = [float(y) for _, y, line in groups if int(line) == number][:LAYERS]
        values = [u_shape(layer, component) for layer in range(LAYERS)]
        spread = (heights[0] - heights[1]) / (values[0] - values[1])
        assert spread < 0 and heights == pytest.approx(
            [heights[1] + spread * (v - values[1]) for v in values], abs=0.01
        )


def test_both_themes_are_in_one_drawing(page, report):
    """No colour of the light theme is left in a figure: they are the page's variables."""
    figures = "".join(str(drawing.svg) for part in report.metrics for drawing in part.drawings)
    assert "var(--ink)" in figures and "var(--line-1)" in figures
    assert not re.search(r"#1f2328|#ffffff|#c8ccd1|#0072b2", figures, re.IGNORECASE)
    assert page.count("prefers-color-scheme: dark") == 2


def test_the_layers_that_matter_are_those_that_were_damaged(report):
    sets = {(found.metric.name, found.curve): (found.worse, found.num) for found in report.sets}
    assert sets[SCORE, "attn1 = zero"] == ("0, 5", LAYERS)
    assert sets[SCORE, "ff = zero"] == ("0:6", LAYERS)
    assert sets[SSIM, "attn1 = zero"] == ("0, 5", LAYERS), "beside the baseline from other noise, at 0.8"
    assert not [name for name, _ in sets if name == ERROR], "it has no control but zero"
    assert runs_text([0, 1, 2, 5, 7, 8]) == "0:3, 5, 7:9" and runs_text([0.5, 2]) == "0.5, 2"


def test_equal_variants_do_not_matter_and_many_tests_make_it_harder():
    """A difference at p = 0.02 alone is found; among twenty that are none it is not."""
    alone = variant("v", "v", {}, {SCORE: (79.0, 1.0)}, difference=(-1.0, 0.8))
    others = [variant(f"o{n}", "o", {}, {SCORE: (80.0, 1.0)}, difference=(0.0, 0.8)) for n in range(20)]
    for rows, found in (([alone], [True]), ([alone, *others], [False] * 21)):
        measured = measured_from_json(document_of(rows))
        assert [one.is_worse for one in findings_of(measured, measured.metrics[0])] == found
    assert list(layer_sets(forms_of(measured.variants), findings_of(measured, measured.metrics[0]))) == []


def test_pictures_are_small_and_those_that_changed_the_most(folder, report):
    measured = report.measured
    assert [(title, len(grids)) for title, grids in report.grids] == [("The best", 10), ("The worst", 2)]
    for _, grids in report.grids:
        for grid in grids:
            assert len(grid.triples) == NUM_FIXED + NUM_WORST
            assert [one.is_worst for one in grid.triples] == [False] * NUM_FIXED + [True] * NUM_WORST
    row = measured.variants[0]  # every pixel is 7 (prompt + 1), the baseline's 0
    ((grid,), missing) = read_grids(measured, [row], folder / "pictures")
    assert missing == [] and [one.prompt for one in grid.triples[NUM_FIXED:]] == [f"prompt {n}" for n in (11, 10, 9, 8)]
    content = base64.b64decode(unquote(grid.triples[-1].difference).partition("base64,")[2])
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.size) == ("WEBP", (192, 192))
    assert picture.convert("RGB").getpixel((90, 90))[0] == pytest.approx(2 * 7 * 9, abs=6)


def test_what_is_gone_is_said_on_the_page(folder, tmp_path):
    measured = read_measured(folder / "evaluation.json")
    rows = measured.variants[1:3]
    write_swept(tmp_path, document_of([]), pictures=0)
    assert read_grids(measured, rows, tmp_path / "pictures") == ([], [])
    (tmp_path / "pictures" / "baseline").mkdir(parents=True)
    assert read_grids(measured, rows, tmp_path / "pictures") == (
        [],
        [f"{tmp_path / 'pictures' / 'baseline'} holds 0 of the first {NUM} pictures"],
    )


def test_an_evaluation_without_variants_or_without_numbers_has_a_page(tmp_path):
    document = document_of([])
    for row in document["rows"]:
        row["scores"] = {}
    text = render_page(make_report(measured_from_json(document), write_swept(tmp_path, document)))
    assert faults(text) == leaving(text) == [] and "0 variants" in text
