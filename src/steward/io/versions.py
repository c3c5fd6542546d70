"""A registry that is kept in the ledger: for a workspace that is thrown away, such as a replay's.

It answers as `io.registry` does. Versions and moved aliases are entries; runs, which are there for people to look at, are
not kept.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from steward.errors import LedgerConflict, VersionUnknown
from steward.io.ledger import Entry, Ledger
from steward.io.registry import Alias, Version
from steward.records import Candidate, Challenger, Reference, Verdict, digest_of

VERSION, ALIAS = "version", "alias"


class LedgerRegistry:
    """Versions and aliases as entries of a ledger.

    Every method raises LedgerUnavailable if the ledger's database cannot be used.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def training_run(self, model: str, roles: Reference, _facts: Mapping[str, str] | None = None) -> str:
        """An id of the training on these roles; nothing is kept."""
        return digest_of(model, roles.digest)[:32]

    def log_candidate(
        self,
        model: str,
        roles: Reference,
        candidate: Candidate,
        _plots: Callable[[], Mapping[str, bytes]] | None = None,
        _facts: Mapping[str, str] | None = None,
    ) -> str:
        """An id of the candidate; nothing is kept."""
        return digest_of(model, roles.digest, candidate.name, candidate.params)[:32]

    def log_card(self, run_id: str, path: Path) -> None:
        """Nothing: cards are for people, who do not come here."""

    def register(
        self,
        challenger: Challenger,
        reference: Reference,
        verdict: Verdict,
        *,
        skops: Path,  # noqa: ARG002 - the store has the files
        onnx: Path | None = None,  # noqa: ARG002
        types: Sequence[str] = (),  # noqa: ARG002
    ) -> int:
        """Make the challenger a version of its model, once; answers the version's number."""
        while True:
            found = self.ledger.entries(challenger.model, VERSION)
            known = [entry for entry in found if entry.subject == challenger.digest]
            if known:
                return int(known[0].body["number"])
            body = {
                "number": len(found) + 1,
                "challenger": reference.as_json(),
                "verdict": verdict.verdict,
                "reason": " ".join(verdict.reasons),
                "run_id": challenger.run_id,
            }
            self._add(challenger.model, VERSION, challenger.digest, body, verdict.at, found)

    def aliases(self, model: str) -> dict[str, int]:
        """Version numbers by alias; empty for a model that has no version yet."""
        moved = {entry.body["alias"]: entry.body["version"] for entry in self.ledger.entries(model, ALIAS)}
        return {alias: number for alias, number in moved.items() if number is not None}

    def move(self, model: str, alias: Alias, version: int | None) -> None:
        """Point an alias at a version, or at none."""
        while self.aliases(model).get(alias) != version:
            if version is not None:
                self.version(model, version)
            moved = self.ledger.entries(model, ALIAS)
            newest, *_ = self.ledger.entries(model, newest_first=True, limit=1)
            self._add(model, ALIAS, str(len(moved) + 1), {"alias": alias, "version": version}, newest.at, moved)

    def champion(self, model: str) -> Version | None:
        """The version that serves."""
        number = self.aliases(model).get("champion")
        return None if number is None else self.version(model, number)

    def version(self, model: str, number: int) -> Version:
        """A version by its number; raises VersionUnknown."""
        versions = self.versions(model)
        for version in versions:
            if version.number == number:
                return version
        known = ", ".join(str(version.number) for version in versions) or "none yet"
        raise VersionUnknown(
            f"{model} has no such version", got=number, allowed=known, do="`steward status` lists them"
        )

    def versions(self, model: str) -> list[Version]:
        """Every registered version, newest first."""
        aliases = self.aliases(model)
        return [_version(entry, aliases) for entry in self.ledger.entries(model, VERSION, newest_first=True)]

    def _add(
        self, model: str, kind: str, subject: str, body: dict[str, Any], at: datetime, known: Sequence[Entry]
    ) -> None:
        """One more entry, unless somebody has added one since `known` was read; whoever calls looks again."""
        last = known[-1].sequence if known else 0
        try:
            self.ledger.append_all(model, [(kind, subject, body)], at, guard=((kind,), last))
        except LedgerConflict:
            return


def _version(entry: Entry, aliases: Mapping[str, int]) -> Version:
    number = int(entry.body["number"])
    return Version(
        model=entry.model,
        number=number,
        digest=entry.subject,
        challenger=Reference.model_validate(entry.body["challenger"]),
        verdict=entry.body["verdict"],
        reason=entry.body["reason"],
        aliases=tuple(sorted(alias for alias, held in aliases.items() if held == number)),
        run_id=entry.body["run_id"],
        at=entry.at,
    )
