"""What the pages ask of whatever runs the DAGs."""

from dataclasses import dataclass
from typing import Literal, Protocol

from fastapi import Request

Kind = Literal["train", "monitor"]


@dataclass(frozen=True)
class Question:
    """A verdict that waits for a person's answer.

    Attributes
    ----------
    subject, body : the question, and what the person should know; Markdown that is shown as text.
    """

    run_id: str
    subject: str
    body: str


class Orchestrator(Protocol):
    """Acts as the person who asks, with their rights; every method raises OrchestratorRefused."""

    def start(self, request: Request, model: str, kind: Kind, run_id: str, reason: str) -> None:
        """Start `<model>.train` or `<model>.monitor` now, under this id; a run of the id that exists already is that run."""

    def questions(self, request: Request, model: str) -> list[Question]:
        """Promotions of the model that wait for an answer, newest first."""

    def answer(self, request: Request, model: str, run_id: str, *, approve: bool, why: str) -> None:
        """Answer the question of a run."""

    def run_page(self, model: str, kind: Kind, run_id: str) -> str:
        """Where people look at a run."""
