"""What became of a case that was to be scored, as processes hand it to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import CaseScore
from lnsegfm.jobs.pieces import ItemWork, file_identity
from lnsegfm.storage import content_hash

_ROOT = Path("/")


@dataclass(frozen=True)
class ScoredCase:
    """What became of one case.

    Args:
        case: Its name.
        score: Its score; None where it could not be scored.
        problems: Why not, a line each.
    """

    case: str
    score: CaseScore | None
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        score = self.score.to_json(_ROOT) if self.score is not None else None
        return {"case": self.case, "score": score, "problems": list(self.problems)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScoredCase:
        """Read what `to_json` gave."""
        score = CaseScore.from_json(content["score"], _ROOT) if content["score"] is not None else None
        return cls(content["case"], score, tuple(content["problems"]))


def scoring_work(
    pairs: Sequence[tuple[str, Path, Path]],
    settings: Mapping[str, Any],
    score: Callable[[str, Path, Path], CaseScore],
) -> ItemWork[ScoredCase]:
    """The scoring of cases as work on items.

    Args:
        pairs: Name, prediction and reference of each.
        settings: All else that their scores depend on, as JSON holds it.
        score: Scores one.
    """

    def make(number: int) -> ScoredCase:
        name, prediction, reference = pairs[number]
        try:
            return ScoredCase(name, score(name, prediction, reference))
        except DataError as error:
            return ScoredCase(name, None, tuple(error.problems))

    files = [[name, file_identity(prediction), file_identity(reference)] for name, prediction, reference in pairs]
    names = [name for name, _, _ in pairs]
    return ItemWork(names, content_hash([settings, files]), make, ScoredCase.to_json, ScoredCase.from_json)
