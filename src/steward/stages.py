"""The order of the steps as data.

Apart from `pipeline`, which runs them and imports everything they need: Airflow reads the order every few seconds.
"""

from dataclasses import dataclass

from steward.config import ModelFile


@dataclass(frozen=True)
class Stage:
    """One step in its place.

    `takes` names the stages whose references the step is given; `mapped` stages run once per candidate; a stage with
    `approval` exists only where the model file says `approve: person`; a dry run ends before the first stage that
    `opens` sealed rows; what a stage that `explains` makes is for people, and a replay goes without.
    """

    name: str
    takes: tuple[str, ...] = ()
    mapped: bool = False
    approval: bool = False
    opens: bool = False
    explains: bool = False


STAGES = (
    Stage("accept"),
    Stage("split", takes=("accept",)),
    Stage("train_candidate", takes=("split",), mapped=True),
    Stage("select", takes=("split", "train_candidate")),
    Stage("refit", takes=("select",)),
    Stage("verify", takes=("refit",), opens=True),
    Stage("approve", takes=("verify",), approval=True),
    Stage("promote", takes=("verify", "approve")),
    Stage("report", takes=("promote",), explains=True),
)


LOOKS = ("check_quality", "detect_drift", "measure_accuracy", "find_features")
MONITORING = (
    Stage("observe"),
    *(Stage(name, takes=("observe",)) for name in LOOKS),
    Stage("decide_retraining", takes=LOOKS),
)
"""The stages of a look at the champion; those between the first and the last do not depend on each other."""


def stages(model: ModelFile) -> tuple[Stage, ...]:
    """The stages of this model's training, in order.

    >>> [stage.name for stage in STAGES if stage.mapped]
    ['train_candidate']
    """
    return tuple(stage for stage in STAGES if model.approve == "person" or not stage.approval)


def searched(model: ModelFile) -> tuple[str, ...]:
    """The candidates that are trained one by one; an ensemble is made of them afterwards."""
    return tuple(name for name in model.candidate_names if name != "ensemble")
