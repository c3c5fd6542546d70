"""The check_quality step: what is wrong with the rows of a look, and with the source."""

import json

from steward.config import ModelFile
from steward.core import quality
from steward.core.profiles import Baseline, Profile
from steward.io.workspace import Workspace
from steward.records import Observation, Quality, Reference, ReferenceProfile


def check_quality(workspace: Workspace, model: ModelFile, observation: Reference) -> Reference:
    """Judge what a look has counted: contract, categories, ranges, missing values, duplicates, schema, stale source.

    Returns
    -------
    Reference to a `Quality`.
    """
    inputs = [model.model_dump(mode="json"), observation.digest]
    return workspace.remember(Quality, inputs, lambda: _quality(workspace, model, observation))


def _quality(workspace: Workspace, model: ModelFile, reference: Reference) -> Quality:
    seen = workspace.load(Observation, reference)
    known = workspace.load(ReferenceProfile, seen.reference)
    findings = quality.judge(
        quality.Incoming(
            model=model,
            facts=quality.Facts.read(seen.source),
            origin=seen.origin,
            profile=Profile.read(json.loads(workspace.store.fetch(seen.profile).read_bytes())),
            unseen=seen.unseen,
            baseline=Baseline.read(json.loads(workspace.store.fetch(known.file).read_bytes())),
            start=seen.start,
            end=seen.end,
            rows_per_day=known.rows / (known.windows * known.days) if known.days else None,
        )
    )
    return Quality(
        model=model.name, observation=reference, findings=findings, says=tuple(finding.says for finding in findings)
    )
