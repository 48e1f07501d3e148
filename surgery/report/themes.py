"""Colours of figures, on light and on dark paper. All are told apart with colour-blind eyes."""

from dataclasses import dataclass
from typing import Literal

ThemeName = Literal["light", "dark"]
COLORMAP = "viridis"


@dataclass(frozen=True)
class Theme:
    """Colours as hex; `series` are those of lines (Okabe and Ito 2008), `gap` that of cells without a value."""

    name: ThemeName
    paper: str
    ink: str
    faint: str
    gap: str
    series: tuple[str, ...]


LIGHT = Theme(
    "light", "#ffffff", "#1f2328", "#c8ccd1", "#dfe1e4", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
)
DARK = Theme(
    "dark", "#15181d", "#e6e8eb", "#4a5058", "#3a3f46", ("#56b4e9", "#e69f00", "#2fc79a", "#e29bc4", "#f0e442")
)
THEMES: dict[ThemeName, Theme] = {theme.name: theme for theme in (LIGHT, DARK)}
