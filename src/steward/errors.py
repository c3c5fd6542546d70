"""Every failure by name.

An error is an object with facts. Its message is built from them and always says the same four things in the same
order: what is wrong, the value that was found, what is allowed, and what to do next. `retryable` is the one fact that
decides Airflow's retry policy; the command line turns every `StewardError` into exit code 1.
"""

from typing import Any, ClassVar

MESSAGE_LIMIT = 2_000


class StewardError(Exception):
    """A failure that Steward expects and can explain.

    Parameters
    ----------
    what : what is wrong, one sentence without a full stop.
    got : the value that was found; shortened in the message, whole in ``.got``.
    allowed : what would have been accepted.
    do : what to do next.
    facts : whatever else a program needs to handle this error, by name.

    Examples
    --------
    >>> print(SourceMissing("no file matches the source", got="data/*.parquet", do="Check source.table"))
    no file matches the source: got 'data/*.parquet'. Check source.table.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self, what: str, *, got: object = None, allowed: object = None, do: str | None = None, **facts: Any
    ) -> None:
        super().__init__(what)
        self.what = what
        self.got = got
        self.allowed = allowed
        self.do = do
        self.facts = facts

    @property
    def name(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        message = self.what
        if self.got is not None:
            message += f": got {_shorten(repr(self.got))}"
        if self.allowed is not None:
            message += f"; allowed: {_shorten(str(self.allowed))}"
        if self.do:
            message += f". {self.do.rstrip('.')}."
        return _shorten(message, MESSAGE_LIMIT)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.got, self.allowed, self.do, self.facts)

    def as_json(self) -> dict[str, Any]:
        """The error as plain JSON, for `--json` answers and the ledger."""
        return {
            "error": self.name,
            "what": self.what,
            "got": None if self.got is None else str(self.got),
            "allowed": None if self.allowed is None else str(self.allowed),
            "do": self.do,
            "retryable": self.retryable,
            **{name: str(value) for name, value in self.facts.items()},
        }


def _shorten(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _rebuild(
    kind: type[StewardError], what: str, got: object, allowed: object, do: str | None, facts: dict[str, Any]
) -> StewardError:
    return kind(what, got=got, allowed=allowed, do=do, **facts)


class ModelFileError(StewardError):
    """The model file cannot be read or says something that is not allowed; names file, line and field."""


class UnknownModel(StewardError):
    """No model file has this name."""


class SettingsError(StewardError):
    """An environment variable has a value that cannot be used."""


class SourceMissing(StewardError):
    """The source table does not exist."""


class SourceUnreadable(StewardError):
    """The source exists but is not a table Steward can read (damaged, other format, no such column type)."""


class SourceUnavailable(StewardError):
    """The source cannot be reached now."""

    retryable = True


class ContractRefused(StewardError):
    """The table as a whole breaks the contract; `failed` names the expectations."""


class NotEnoughSealedRows(StewardError):
    """Too few sealed test rows to decide anything; `missing` labelled rows are needed. Raised before training."""


class RolesFixed(StewardError):
    """The split was changed after sealed rows were opened, so that rows that models learned from would become test rows."""


class OpeningRefused(StewardError):
    """These sealed rows were opened, or are being opened, by another challenger."""


class CandidateFailed(StewardError):
    """One candidate could not be trained; the others go on."""


class NoCandidate(StewardError):
    """No candidate could be trained."""


class VersionUnknown(StewardError):
    """The registry has no such version of this model."""


class NoChampion(StewardError):
    """The model has no champion yet."""


class NotReproducible(StewardError):
    """A recorded input needed to rebuild a version is gone."""


class ArtifactDamaged(StewardError):
    """A stored file is not the one that was recorded: its SHA-256 differs, or it is gone."""


class ArtifactUntrusted(StewardError):
    """An artifact holds a type that is not on Steward's own list."""


class StoreUnavailable(StewardError):
    """The store cannot be written or read now (disk full, no permission, no connection)."""

    retryable = True


class LedgerUnavailable(StewardError):
    """The ledger's database is locked, away or out of date."""

    retryable = True


class LedgerConflict(StewardError):
    """The ledger already holds a different entry under this subject."""


class RegistryUnavailable(StewardError):
    """MLflow does not answer."""

    retryable = True


class RecordInvalid(StewardError):
    """A single record sent for prediction breaks the contract."""


class RequestRefused(StewardError):
    """A request to the service is not one that it takes: too large, too deep, too often, without a valid key."""


class LogUnavailable(StewardError):
    """A prediction cannot be put on record now, and the model file says to refuse rather than to answer without."""

    retryable = True


class AnswerInvalid(StewardError):
    """A version computed something that is no answer: a probability or a prediction that is not a finite number."""


class OutputRefused(StewardError):
    """The place for a batch's answers is none that can be written, or holds something that is no batch's answers."""


class ScoringStopped(StewardError):
    """A batch was not scored: its rows break the contract or have drifted, and the model file says to stop then."""


class ClockWentBack(StewardError):
    """A look at a model was asked for at a moment before the first look at it."""


class ReplayRefused(StewardError):
    """The past of this model cannot be replayed as asked: no times, too few rows, nothing to begin with."""


class OrchestratorRefused(StewardError):
    """Airflow did not do what a page asked of it in somebody's name; `status` is what it answered."""
