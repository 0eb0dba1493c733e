"""The result of recognising a form of model, and the reason where a source is of another form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.registry.model_card import ModelCard
from lnsegfm.registry.stored_model import Parts
from lnsegfm.weights.checkpoint import Checkpoint


class NotThisForm(Exception):
    """A source is not of this form.

    Args:
        reason: Why, in one line; empty where the form is too far off to be worth mentioning.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class FoldAsRead(NamedTuple):
    """A fold, not yet checked.

    Args:
        checkpoint: What its file holds.
        notes: What is to be said of it, one line each.
    """

    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecognisedFold:
    """One network of a model.

    Args:
        name: ``0``, ``1``, ... or ``all``.
        file: Where it came from.
        read: Reads it, when its turn comes: an ensemble's folds need not be in memory together.
    """

    name: str
    file: Path
    read: Callable[[], FoldAsRead]


@dataclass(frozen=True, kw_only=True)
class RecognisedModel:
    """A model that was recognised, not yet checked.

    Args:
        form: What it is, for people.
        folds: Its networks.
        files: Further files that it was made of.
        covers: First parts of the names of the weights of an encoder or a backbone; empty for a whole model.
        backbone: They are of all but the output layer.
        notes: What is to be said of it.
        citation: What its file asks to cite.
        card: What its file says of itself.
        axes: The axis code that its form was trained on; None where that is not known of the form.
        previous: Of a cascade's later stage the model of the previous stage, where it is there.
        postprocessing: Rules that its masks are postprocessed by.
    """

    form: str
    folds: tuple[RecognisedFold, ...]
    files: tuple[Path, ...] = ()
    covers: tuple[str, ...] = ()
    backbone: bool = False
    notes: tuple[str, ...] = ()
    citation: str | None = None
    card: ModelCard | None = None
    axes: str | None = None
    previous: RecognisedModel | None = None
    postprocessing: Postprocessing = Postprocessing()  # noqa: RUF009 - frozen

    @property
    def parts(self) -> Parts:
        """Which part of its network it is."""
        return "all" if not self.covers else "backbone" if self.backbone else "encoder"
