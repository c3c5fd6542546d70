"""The steps: references in, one reference out, safe to kill and to repeat.

The only folder that knows both `core` and `io`. A step finds its inputs by reference, lets `core` decide, lets `io` keep
the result, and answers with a reference to it. What a step makes is kept under the digest of its inputs, so that a
repeated step finds what the first one made.
"""

from steward.steps.accuracy import measure_accuracy
from steward.steps.candidate import train_candidate
from steward.steps.cards import report
from steward.steps.challenger import refit
from steward.steps.choice import select
from steward.steps.decision import decide_retraining, read_trigger
from steward.steps.drifting import detect_drift
from steward.steps.features import find_features
from steward.steps.labelled import count_new_rows
from steward.steps.observation import observe
from steward.steps.opening import verify
from steward.steps.promotion import approve, enthrone, move_aliases, promote
from steward.steps.quality import check_quality
from steward.steps.roles import split
from steward.steps.rows import LearningRows, learning_rows, rows_of
from steward.steps.scoring import score
from steward.steps.snapshot import accept
from steward.steps.training import training_facts, training_seed, write_skops

__all__ = [
    "LearningRows",
    "accept",
    "approve",
    "check_quality",
    "count_new_rows",
    "decide_retraining",
    "detect_drift",
    "enthrone",
    "find_features",
    "learning_rows",
    "measure_accuracy",
    "move_aliases",
    "observe",
    "promote",
    "read_trigger",
    "refit",
    "report",
    "rows_of",
    "score",
    "select",
    "split",
    "train_candidate",
    "training_facts",
    "training_seed",
    "verify",
    "write_skops",
]
