import re
from dataclasses import replace
from datetime import timedelta

import pytest

from steward.reports import drawing, timeline


def svg_of(past, width=timeline.WIDE):
    return drawing.svg(timeline.draw(past, width), "past", "what happened")


@pytest.fixture
def marks(read):
    """How many marks a part of a picture has: its points, bars or pieces of a line."""

    def count(svg, name):
        part = read(svg).by_id(f"past-{name}")
        return len(part.all("use")) or len(part.all("path"))

    return count


def names(read, svg):
    return {element.attributes.get("id") for element in read(svg).everything()}


def texts(read, svg):
    return [element.text for element in read(svg).all("text")]


def test_every_look_with_outcomes_is_a_dot_with_a_whisker(views, read, marks):
    past = views.past(54)
    known = sum(window.live is not None for window in past.windows)
    svg = svg_of(past)
    assert known == 47
    assert marks(svg, "live") == marks(svg, "live-interval") == known


def test_many_looks_become_a_line_with_a_band(views, read, marks):
    svg = svg_of(views.past(730))
    assert marks(svg, "live") == marks(svg, "estimate") == 1
    assert marks(svg, "live-interval") == 7, "a piece per champion, whose first days have no outcome yet"


def test_every_champion_is_a_bar_of_its_own_time(views, read, marks):
    past = views.past(730)
    found = timeline.reigns(past)
    assert [one.version for one in found] == list(range(1, 8))
    assert [one.start for one in found[1:]] == [one.end for one in found[:-1]]
    svg = svg_of(past)
    assert all(marks(svg, f"champion-{number}") == 1 for number in range(7))
    named = [text for text in texts(read, svg) if text.startswith("version")]
    assert named == [f"version {number}" for number in range(1, 7)], "the last one has no room for its name yet"


def test_a_rollback_changes_the_champion_back(views):
    past = views.past(54)
    back = replace(past.events[0], at=past.windows[30].start, kind="rollback", version=9)
    assert [one.version for one in timeline.reigns(replace(past, events=(*past.events, back)))] == [1, 9]


def test_alarms_that_follow_each_other_are_one_bar(views, read, marks):
    past = views.past(730)
    spells = sum(
        bool(now.alarms) and not before.alarms for before, now in zip(past.windows, past.windows[1:], strict=False)
    )
    assert spells == 6
    assert marks(svg_of(past), "alarms") == spells


@pytest.mark.parametrize(
    ("lane", "kind", "expected"), [("verdicts", "promote", 6), ("verdicts", "hold", 6), ("trainings", "training", 6)]
)
def test_marks_stand_in_the_lane_of_their_kind(views, marks, lane, kind, expected):
    assert marks(svg_of(views.past(730)), f"{lane}-{kind}") == expected


@pytest.mark.parametrize("looks", [1, 2, 3, 54, 60, 61, 730])
@pytest.mark.parametrize("width", [timeline.WIDE, timeline.NARROW])
def test_no_label_runs_into_another(views, looks, width):
    """As matplotlib measures them with its own font, which is wider than most."""
    figure = timeline.draw(views.past(looks, per_version=45), width)
    figure.canvas.draw()
    above, below = figure.axes
    for axes in (above, below):
        found = [*axes.get_xticklabels(), *axes.texts] if axes is below else axes.get_yticklabels()
        inside = sorted(
            (one.get_window_extent() for one in found if one.get_visible() and one.get_text()),
            key=lambda box: (round(box.y0), box.x0),
        )
        boxes = [box for box in inside if 0 <= (box.y0 + box.y1) / 2 <= figure.bbox.height]
        assert not [(a, b) for number, a in enumerate(boxes) for b in boxes[number + 1 :] if a.overlaps(b)]
    legend = figure.legends[0].get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width
    assert legend.y0 >= above.get_window_extent().y1 - 1


def test_looks_without_outcomes_show_the_estimate_alone(views, read):
    past = views.past(30)
    unlabelled = replace(past, windows=tuple(replace(one, live=None) for one in past.windows))
    found = names(read, svg_of(unlabelled))
    assert "past-estimate" in found
    assert "past-live" not in found


def test_an_estimate_of_another_kind_of_metric_is_not_drawn(views, read):
    past = views.past(30)
    others = replace(past, windows=tuple(replace(one, estimate_metric="rmse") for one in past.windows))
    assert "past-estimate" not in names(read, svg_of(others))


def test_errors_are_not_read_as_per_cent(views, read):
    past = views.past(30)
    errors = replace(past, metric="rmse", windows=tuple(replace(one, metric="rmse") for one in past.windows))
    assert not [text for text in texts(read, svg_of(errors)) if "%" in text]


def test_many_events_at_one_moment_stay_in_their_lanes(views, marks):
    past = views.past(54)
    crowd = tuple(
        replace(past.events[0], at=past.windows[5].end + timedelta(seconds=n), kind=kind, outcome=outcome)
        for n in range(50)
        for kind, outcome in [("verdict", "reject"), ("approval", "refused"), ("failure", None)]
    )
    svg = svg_of(replace(past, events=(*past.events, *crowd)))
    assert marks(svg, "verdicts-reject") == marks(svg, "people-refused") == marks(svg, "failures-failure") == 50


def test_the_same_past_is_the_same_picture(views):
    assert svg_of(views.past(54)) == svg_of(views.past(54))


def test_what_is_drawn_of_two_years_does_not_grow_with_the_looks(views, read):
    weekly, daily = (len(list(read(svg_of(views.past(looks))).everything())) for looks in (104, 730))
    assert daily < 2 * weekly, "seven times the looks, and seven champions instead of one"


def test_the_shape_of_a_mark_tells_as_much_as_its_colour():
    for lane, kinds in {
        "verdicts": ["promote", "hold", "reject"],
        "people": ["approved", "refused", "timed_out"],
    }.items():
        assert len({timeline.MARKS[kind][0] for kind in kinds}) == len(kinds), lane


def test_an_svg_needs_no_style_that_a_policy_refuses(views, read):
    svg = svg_of(views.past(54))
    page = read(svg)
    assert not page.all("style")
    assert not [element for element in page.everything() if "style" in element.attributes]
    assert not re.search(r"(fill|stroke)=\"#(?!000000)", svg)
    root = page.one("svg")
    assert (root.attributes["role"], root.attributes["aria-label"]) == ("img", "what happened")
