"""What can be read: contrast by WCAG 2, and shades that need no colour to be told apart."""

import re
from itertools import pairwise

import pytest

from steward.reports.templating import stylesheet

TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", stylesheet()["style"]
    )
}
THEMES = pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@THEMES
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        *((text, behind) for text in ("ink", "muted") for behind in ("surface", "page", "tint")),
        *((tone, behind) for tone in ("good", "unsure", "bad") for behind in ("surface", f"{tone}-tint")),
        ("ink", "good-tint"), ("ink", "unsure-tint"), ("ink", "bad-tint"),
        ("plot-0", "surface"), ("plot-0", "page"),
        *((f"on-heat-{number}", f"heat-{number}") for number in range(1, 6)),
        ("ink", "heat-1"),
    ],
)  # fmt: skip
def test_text_can_be_read(text, behind, theme):
    assert contrast(TOKENS[text][theme], TOKENS[behind][theme]) >= 4.5


@THEMES
@pytest.mark.parametrize("number", range(6))
def test_marks_of_a_plot_stand_out(number, theme):
    assert contrast(TOKENS[f"plot-{number}"][theme], TOKENS["surface"][theme]) >= 3


@THEMES
def test_shades_of_drift_rise_evenly_in_lightness(theme):
    """Told apart without any colour, and the calm ones are nearest to the page."""
    levels = [luminance(TOKENS[name][theme]) for name in ("surface", *(f"heat-{number}" for number in range(1, 6)))]
    steps = [later - earlier for earlier, later in pairwise(levels)]
    assert len({step > 0 for step in steps}) == 1
    shades = [TOKENS[f"heat-{number}"][theme] for number in range(1, 6)]
    assert all(contrast(one, other) >= 1.2 for one, other in pairwise(shades))


def test_every_variable_that_is_used_has_a_value():
    style = stylesheet()["style"]
    assert set(re.findall(r"var\(--([\w-]+)\)", style)) <= set(TOKENS)


def test_nothing_comes_from_elsewhere():
    assert not re.search(r"url\(|@import|https?:", stylesheet()["style"])
