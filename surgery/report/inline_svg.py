"""A figure -> SVG for a page: its colours are the page's own (CSS variables), so that one drawing has both themes."""

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from surgery.report.themes import DARK, LIGHT, Theme

SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it is read aloud, found, and small
    "axes.unicode_minus": False,
    "font.family": ["DejaVu Sans"],  # by which texts are measured; the page's own font is no wider
}
NAMES = ("paper", "ink", "faint", "gap")


def variables_of(theme: Theme) -> dict[str, str]:
    """The colours of a theme by the names that they have on a page: `--ink`, `--line-0`."""
    plain = {f"--{name}": str(getattr(theme, name)) for name in NAMES}
    return {**plain, **{f"--line-{number}": color for number, color in enumerate(theme.series)}}


def theme_css() -> str:
    """The variables of both themes as a style sheet."""

    def block(theme: Theme) -> str:
        return " ".join(f"{name}: {color};" for name, color in variables_of(theme).items())

    return f":root {{ {block(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {block(DARK)} }} }}"


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """A figure that was drawn with the light theme, as an `svg` element of a page.

    `name` is unlike that of any other figure of the page: it begins all ids. `label` says what is seen.
    """
    target = io.StringIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure.savefig(target, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _own_ids(text, name)
    return _labelled(_in_variables(text), label)


def _in_variables(text: str) -> str:
    """Colours of the light theme as variables; those of maps stay."""
    for variable, color in variables_of(LIGHT).items():
        text = re.sub(rf"{color}\b", f"var({variable})", text, flags=re.IGNORECASE)
    return re.sub(r"font: ([^;\"']*?) 'DejaVu Sans'[^;\"]*", r"font: \1 var(--font)", text)


def _own_ids(text: str, name: str) -> str:
    """Ids that nothing refers to go, and the others are the figure's own."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    return re.sub(r'(url\(#|href="#)([^)"]+)', rf"\g<1>{name}-\g<2>", text)


def _labelled(text: str, label: str) -> str:
    """The element with the size of its place, and what it shows for those who can't see it."""
    from html import escape

    head, _, rest = text.partition(">")
    view = re.search(r'viewBox="([^"]+)"', head)
    assert view is not None, "matplotlib writes one"
    return f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(label)}">{rest.strip()}'
