"""Records of the store that a page can do without: what cannot be read is told, and the rest of the page stands."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from steward.errors import StewardError
from steward.io.workspace import Workspace
from steward.records import Record, Reference

R = TypeVar("R", bound=Record)


class Evidence:
    """Reads records. `problems` : what could not be read, a sentence each."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.problems: list[str] = []

    def read(self, record: type[R], reference: Reference | None) -> R | None:
        """None where there is no reference, or nothing that can be read behind it."""
        if reference is None:
            return None
        try:
            return self.workspace.load(record, reference)
        except StewardError as problem:
            why = problem.what
        except ValidationError:
            why = "another version of Steward wrote it"
        self.problems.append(f"The record {record.kind} {reference.digest[:12]} cannot be read: {why}.")
        return None

    def part(self, record: type[R], parts: Mapping[str, Any]) -> R | None:
        """As `read`, of the parts of a decision."""
        found = parts.get(record.kind)
        return self.read(record, Reference.model_validate(found) if found else None)
