"""The governor's rules, one table; and that a cause never starts two trainings."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.config import Retrain
from steward.core.retraining import ATTEMPTS, STRENGTH, Situation, Training, Trigger, decide

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def trigger(kind="accuracy", cause="this", **more):
    return Trigger(kind, cause, f"{kind} says so", NOW, **more)


def training(hours, kind="accuracy", cause="another", verdict="promote"):
    return Training(NOW - hours * HOUR, kind, cause, verdict)


def failed(hours):
    return Training(NOW - hours * HOUR, "accuracy", "this", failure="ContractRefused")


@pytest.mark.parametrize(
    ("policy", "asked", "situation", "rule"),
    [
        ({}, trigger(), Situation(running=True), "one at a time"),
        ({}, trigger(), Situation((training(400, cause="this"),)), "one run per cause"),
        ({}, trigger(), Situation((training(400, cause="this", verdict=None),)), "one run per cause"),
        ({}, trigger("manual"), Situation((failed(400),)), "one run per cause"),
        ({}, trigger(), Situation((failed(23),)), "cooldown"),
        ({}, trigger(), Situation((training(400, cause="this", verdict="hold"),), missing_rows=9), "sealed rows"),
        ({}, trigger(), Situation((training(400, cause="this", verdict="reject"),), helps=False), "second attempt"),
        (
            {},
            trigger(),
            Situation((*(failed(h) for h in (600, 500)), training(400, cause="this", verdict="hold")), helps=False),
            "attempts",
        ),
        ({}, trigger("new_rows", loss_low=0.001), Situation((training(400),), saved=0.75), "rest"),
        ({}, trigger("new_rows", loss=0.01, loss_low=0.0), Situation((training(400),), saved=3.0), "expected loss"),
        ({}, trigger("new_rows"), Situation((training(400),), saved=3.0), "expected loss"),
        ({"on": ("concept_drift",)}, trigger(), Situation(), "retrain.on"),
        ({}, trigger("data_drift"), Situation(), "expected loss"),
        ({}, trigger("data_drift", loss=0.02, loss_low=-0.01), Situation(), "expected loss"),
        ({}, trigger(), Situation(tuple(training(h, verdict="reject") for h in (600, 500, 400))), "circuit breaker"),
        ({}, trigger(), Situation((training(23),)), "cooldown"),
        ({}, trigger(), Situation(tuple(training(h) for h in (160, 100, 40))), "budget"),
        ({"max_per_week": 0}, trigger(), Situation(), "budget"),
        ({}, trigger(), Situation(missing_rows=120), "sealed rows"),
    ],
)
def test_what_holds_a_trigger_back(policy, asked, situation, rule):
    decision = decide(Retrain(**policy), [asked], situation, at=NOW)
    assert not decision.train
    assert decision.refusals[0].rule == rule
    assert decision.reason.startswith("wait: ")
    assert decision.ask_a_person == (rule in ("circuit breaker", "attempts", "second attempt"))


@pytest.mark.parametrize(
    ("policy", "asked", "situation"),
    [
        ({}, trigger(), Situation()),
        ({}, trigger("data_drift", loss=0.05, loss_low=0.01), Situation()),
        ({}, trigger("new_rows", loss_low=0.001), Situation()),
        ({}, trigger("new_rows", loss_low=0.001), Situation((training(400),), saved=1.0)),
        ({"new_rows": 500}, trigger("new_rows"), Situation((training(400),), saved=0.25)),
        ({}, trigger(), Situation((failed(24),))),
        ({}, trigger(), Situation((failed(60), training(24, cause="this", verdict="hold")))),
        ({}, trigger(), Situation((training(24, cause="this", verdict="hold"),), helps=True)),
        ({}, trigger(), Situation((training(400, cause="this", verdict="hold"), failed(24)), helps=False)),
        ({}, trigger(), Situation(helps=False)),
        ({}, trigger(), Situation((training(24),))),
        ({}, trigger("manual"), Situation(tuple(training(h, verdict="reject") for h in (3, 2, 1)), missing_rows=9)),
        ({}, trigger("schedule"), Situation((training(1, kind="schedule", cause="this"),))),
        (
            {},
            trigger(),
            Situation((*(training(h, verdict="reject") for h in (600, 500, 400)), training(300, "manual"))),
        ),
        ({}, trigger(), Situation(tuple(training(h, verdict="hold") for h in (600, 500, 400)))),
    ],
)
def test_what_starts_a_training(policy, asked, situation):
    decision = decide(Retrain(**policy), [asked], situation, at=NOW)
    assert (decision.train, decision.trigger) == (True, asked)
    assert decision.as_json()["trigger"]["at"] == NOW.isoformat()


def test_the_strongest_trigger_is_the_reason():
    triggers = [trigger(kind, cause=kind, loss_low=0.1) for kind in reversed(STRENGTH)]
    assert decide(Retrain(), triggers, Situation(), at=NOW).trigger.kind == "manual"
    assert decide(Retrain(), [], Situation(), at=NOW).reason == "wait: nothing asks for a training"


def test_a_refusal_says_until_when():
    (refusal,) = decide(Retrain(), [trigger()], Situation((training(23),)), at=NOW).refusals
    assert refusal.until == NOW + HOUR


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["a", "b", "c"])), max_size=40))
def test_no_cause_trains_too_often_and_no_week_holds_too_many(looks):
    policy, done = Retrain(), []
    for hours, cause in sorted(looks):
        at = NOW + hours * HOUR
        asked = Trigger("accuracy", cause, cause, at)
        if decide(policy, [asked], Situation(tuple(done)), at=at).train:
            done.append(Training(at, "accuracy", cause, "promote" if cause == "a" else "hold"))
    often = Counter(one.cause for one in done)
    assert often["a"] <= 1
    assert max(often.values(), default=0) <= ATTEMPTS
    assert all(b.at - a.at >= policy.cooldown for a, b in pairwise(done))
