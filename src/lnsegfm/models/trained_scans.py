"""Which scans trained a model, its base and the base of that: how it predicts them says nothing about new ones.

The record is an entry of the plans, ``trained_on``, which nnU-Net passes over. So it goes wherever plans go: model
folders, checkpoints, runs, adapters, exports, imports. It holds no voxel and no name: scans are known by a hash of
their voxels (`lnsegfm.imaging.scan_hash`), patients by a salted, slow hash (scrypt, RFC 7914) of what ``subjects.csv``
calls them.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lnsegfm.errors import ModelError
from lnsegfm.imaging.scan_hash import DIGITS

TRAINED_ON = "trained_on"
"""The entry of plans."""
FORMAT = "lnsegfm.trained-on/1"
_COST: Mapping[str, int] = {"n": 2**12, "r": 8, "p": 1, "dklen": 16}  # 4 MB and about 10 ms a name


@dataclass(frozen=True)
class Training:
    """The scans of one training.

    Args:
        scans: Their hashes, sorted.
        subjects: Hashes of their patients, sorted; only of those that are known.
    """

    scans: tuple[str, ...]
    subjects: tuple[str, ...] = ()

    @classmethod
    def on(cls, scans: Iterable[str], subjects: Iterable[str] = ()) -> Training:
        """A training on scans, by their hashes, of patients, by their names."""
        own = tuple(sorted(set(scans)))
        return cls(own, tuple(sorted(_hashed(name, own) for name in set(subjects))))

    def of_subject(self, subject: str) -> bool:
        """Whether a scan of a patient of this name was trained on."""
        return bool(self.subjects) and _hashed(subject, self.scans) in self.subjects

    def to_json(self) -> dict[str, Any]:
        """A plain table."""
        return {"scans": list(self.scans), "subjects": list(self.subjects)}


@dataclass(frozen=True)
class TrainedScans:
    """The trainings that made a model's weights.

    Args:
        trainings: The model's own first, then its base's, then those before.
    """

    trainings: tuple[Training, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.trainings)

    @classmethod
    def of_plans(cls, plans: Mapping[str, Any]) -> TrainedScans:
        """What plans record; nothing where they record none.

        Raises:
            ModelError: The entry is no such record.
        """
        entry = plans.get(TRAINED_ON)
        if entry is None:
            return cls()
        try:
            if entry["format"] != FORMAT:
                raise ValueError(entry["format"])
            return cls(tuple(Training(_hashes(one["scans"]), _hashes(one["subjects"])) for one in entry["trainings"]))
        except (KeyError, TypeError, ValueError):
            raise ModelError(
                f"plans.json: {TRAINED_ON} is not of the format {FORMAT}. Remove the entry: it is then not known which "
                "scans trained the model."
            ) from None

    def after(self, training: Training | None) -> TrainedScans:
        """This and a further training; None adds nothing, and neither does a training that is there already."""
        if training is None or training in self.trainings:
            return self
        return TrainedScans((training, *self.trainings))

    def together(self, others: Iterable[TrainedScans]) -> TrainedScans:
        """These and those of models that predict together with this one."""
        every = (self, *others)
        return TrainedScans(tuple(dict.fromkeys(one for model in every for one in model.trainings)))

    def in_plans(self, plans: Mapping[str, Any]) -> dict[str, Any]:
        """Plans that record these scans in place of any others."""
        kept = {key: value for key, value in plans.items() if key != TRAINED_ON}
        if not self.trainings:
            return kept
        return kept | {TRAINED_ON: {"format": FORMAT, "trainings": [one.to_json() for one in self.trainings]}}

    @cached_property
    def scans(self) -> frozenset[str]:
        """Hashes of all scans."""
        return frozenset(scan for training in self.trainings for scan in training.scans)

    def of_subject(self, subject: str) -> bool:
        """Whether a scan of a patient of this name was trained on."""
        return any(training.of_subject(subject) for training in self.trainings)

    def among(self, scans: Mapping[str, str], subjects: Mapping[str, str]) -> TrainedCases:
        """Which cases trained the model, themselves or by another scan of their patient.

        Args:
            scans: The hash of each case's scan.
            subjects: The patient of each case, where known.
        """
        own = tuple(sorted(case for case, scan in scans.items() if scan in self.scans))
        patients = {subjects[case] for case in own if case in subjects}
        asked = {subjects[case] for case in scans if case in subjects} - patients
        patients |= {subject for subject in sorted(asked) if self.of_subject(subject)}
        return TrainedCases(
            own, tuple(sorted(case for case in scans if case not in own and subjects.get(case) in patients))
        )


@dataclass(frozen=True)
class TrainedCases:
    """Cases that a model knows from its training.

    Args:
        scans: Cases that were trained on.
        subjects: Cases of patients of whom another scan was.
    """

    scans: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    @property
    def cases(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.scans, *self.subjects))

    def within(self, cases: Iterable[str]) -> TrainedCases:
        """Those among some cases."""
        some = set(cases)
        return TrainedCases(tuple(c for c in self.scans if c in some), tuple(c for c in self.subjects if c in some))


def _hashed(subject: str, scans: tuple[str, ...]) -> str:
    """A name's hash; the salt is the training's own, so that no table of names serves two models."""
    return hashlib.scrypt(subject.encode(), salt=f"lnsegfm {scans[0] if scans else ''}".encode(), **_COST).hex()


def _hashes(values: Any) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str) or len(value) != DIGITS or not set(value) <= set(string.hexdigits):
            raise ValueError(value)
    return tuple(values)
