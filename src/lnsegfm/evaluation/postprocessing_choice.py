"""Choice of a model's postprocessing on predictions of scans that did not train it.

**One-standard-error rule** (after Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): a rule is
taken only if the mean gain in Dice of the labels that it touches, over patients, is larger than its own standard error,
and no label that it touches has a lower mean. Of several smallest volumes the smallest is taken whose gain is within
one standard error of the best. Ties go to no rule.

**Scans without a label** cannot show what a smallest volume removes of it: it counts only if the mean over the patients
who have the label is not lower, and where fewer than `FEWEST_HOLDING` have it only the smallest volume is tried.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lnsegfm.datasets.labels import LabelMap, node_labels
from lnsegfm.evaluation.overlap import dice
from lnsegfm.evaluation.postprocessing import LargestComponent, MaskRule, Postprocessing, SmallestVolume

FEWEST = 3
"""Patients at least: of two the standard error says next to nothing."""
FEWEST_HOLDING = 2
"""Patients at least whose references have a label, for volumes beyond the smallest."""
VOLUMES_MM3 = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Smallest volumes that are tried."""


@dataclass(frozen=True, eq=False)
class JudgedCase:
    """A prediction with its reference, on one grid.

    Args:
        name: The case.
        masks: Gives prediction and reference (z, y, x), both with the values of the labels that are judged.
        voxel_mm3: Volume of a voxel.
        subject: The patient; the case itself where nobody says it.
        unlabelled: Labels that nobody annotated in the reference: not judged.
    """

    name: str
    masks: Callable[[], tuple[np.ndarray, np.ndarray]]
    voxel_mm3: float
    subject: str = ""
    unlabelled: frozenset[str] = frozenset()

    @property
    def patient(self) -> str:
        """The patient's name."""
        return self.subject or self.name


@dataclass(frozen=True)
class PostprocessedScores:
    """Dice of each label and case before and after postprocessing.

    Args:
        before: Case, label, Dice; a case with neither mask counts 1, a label that is not annotated is left out.
        after: The same after the rules.
        crossfitted: Each case's rules were chosen without its patient.
    """

    before: Mapping[str, Mapping[str, float]]
    after: Mapping[str, Mapping[str, float]]
    crossfitted: bool = False

    def means(self) -> dict[str, tuple[float, float, int]]:
        """Of each label the mean before and after, and the cases it was judged on."""
        labels = dict.fromkeys(label for case in self.before.values() for label in case)
        return {label: self._mean(label) for label in labels}

    def _mean(self, label: str) -> tuple[float, float, int]:
        cases = [case for case in self.before if label in self.before[case]]
        first, last = ([table[case][label] for case in cases] for table in (self.before, self.after))
        return statistics.fmean(first), statistics.fmean(last), len(cases)


@dataclass(frozen=True)
class PostprocessingChoice:
    """Rules, and what they gain.

    Args:
        chosen: The rules; none where none helps.
        scores: Of the cases they were chosen on: honest only where ``crossfitted``.
        cases: The cases, by name.
        reason: Why nothing was chosen by, in words; empty where there was enough.
    """

    chosen: Postprocessing
    scores: PostprocessedScores
    cases: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Chooser:
    """Dice under each sequence of rules that was tried, by case; masks are read once a sequence."""

    cases: Sequence[JudgedCase]
    labels: LabelMap
    _known: dict[tuple[str, tuple[MaskRule, ...]], dict[str, float]] = field(default_factory=dict)
    _held: dict[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def largest(self) -> list[LargestComponent]:
        """Largest components that are tried: of all foreground, then of each label; never of nodes, which are many."""
        nodes, covered = node_labels(self.labels.names), self.labels.covered
        single = [LargestComponent(values) for name, values in covered.items() if name not in nodes]
        every = tuple(sorted({value for values in covered.values() for value in values}))
        together = [LargestComponent(every)] if len(covered) > 1 and not nodes else []
        return [*together, *single]

    def scores(self, case: JudgedCase, rules: tuple[MaskRule, ...]) -> dict[str, float]:
        """Dice of each annotated label of a case after rules."""
        key = (case.name, rules)
        if key not in self._known:
            prediction, reference = case.masks()
            valid = reference != self.labels.ignore if self.labels.ignore is not None else None
            self._held[case.name] = frozenset(n for n in self.labels.names if self.labels.voxels(reference, n).any())
            for number in range(len(rules) + 1):
                if number:
                    prediction = rules[number - 1].applied(prediction, case.voxel_mm3)
                if (case.name, rules[:number]) not in self._known:
                    self._known[case.name, rules[:number]] = self._dice(case, prediction, reference, valid)
        return self._known[key]

    def _dice(
        self, case: JudgedCase, prediction: np.ndarray, reference: np.ndarray, valid: np.ndarray | None
    ) -> dict[str, float]:
        voxels = self.labels.voxels
        found = {
            label: dice(voxels(prediction, label), voxels(reference, label), valid)
            for label in self.labels.names
            if label not in case.unlabelled
        }
        return {label: 1.0 if math.isnan(value) else value for label, value in found.items()}

    def choose(self, cases: Sequence[JudgedCase]) -> Postprocessing:
        """The rules that help these cases: largest components first, then smallest volumes."""
        rules: tuple[MaskRule, ...] = ()
        for candidate in self.largest:
            if self._helps(cases, rules, candidate):
                rules = (*rules, candidate)
        for values in self.labels.covered.values():
            if not any(set(values) == set(rule.values) for rule in rules):
                rules = (*rules, *self._volume(cases, rules, values))
        return Postprocessing(rules)

    def _volume(
        self, cases: Sequence[JudgedCase], rules: tuple[MaskRule, ...], values: tuple[int, ...]
    ) -> tuple[MaskRule, ...]:
        holding = [case for case in cases if self._holds(case, values)]
        shown = len({case.patient for case in holding}) >= FEWEST_HOLDING
        tried = [SmallestVolume(values, mm3) for mm3 in (VOLUMES_MM3 if shown else VOLUMES_MM3[:1])]
        helping = [
            rule for rule in tried if self._helps(cases, rules, rule) and not_lower(self._gains(holding, rules, rule))
        ]
        if not helping:
            return ()
        gains = {rule: mean_and_error(self._gains(cases, rules, rule)) for rule in helping}
        best = max(helping, key=lambda rule: gains[rule][0])
        least = gains[best][0] - gains[best][1]
        return (next(rule for rule in helping if gains[rule][0] >= least),)

    def _holds(self, case: JudgedCase, values: tuple[int, ...]) -> bool:
        """Whether a case's reference has the label of these values, and it is annotated."""
        self.scores(case, ())
        named = [name for name, own in self.labels.covered.items() if own == values and name not in case.unlabelled]
        return not self._held[case.name].isdisjoint(named)

    def _touched(self, rule: MaskRule) -> list[str]:
        return [name for name, values in self.labels.covered.items() if not set(values).isdisjoint(rule.values)]

    def _gains(
        self, cases: Sequence[JudgedCase], rules: tuple[MaskRule, ...], rule: MaskRule, label: str | None = None
    ) -> list[float]:
        """Gain in Dice of each patient who is judged, of one label or the mean of those touched."""
        by_patient: dict[str, list[float]] = {}
        for case in cases:
            before, after = self.scores(case, rules), self.scores(case, (*rules, rule))
            judged = [each for each in ([label] if label else self._touched(rule)) if each in before]
            if judged:
                gain = statistics.fmean(after[each] - before[each] for each in judged)
                by_patient.setdefault(case.patient, []).append(gain)
        return [statistics.fmean(gains) for gains in by_patient.values()]

    def _helps(self, cases: Sequence[JudgedCase], rules: tuple[MaskRule, ...], rule: MaskRule) -> bool:
        gains = self._gains(cases, rules, rule)
        if len(gains) < 2:
            return False
        mean, error = mean_and_error(gains)
        if not mean > max(error, 1e-9):
            return False
        each = (self._gains(cases, rules, rule, label) for label in self._touched(rule))
        return all(not_lower(own) for own in each)


def not_lower(gains: Sequence[float]) -> bool:
    """Whether the mean of gains is no loss; of none it is none."""
    return not gains or statistics.fmean(gains) >= -1e-12


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (sample standard deviation over the root of the number); 0 of equal values."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def choose_postprocessing(
    cases: Sequence[JudgedCase], labels: LabelMap, *, crossfit: bool = False
) -> PostprocessingChoice:
    """Choose rules by the one-standard-error rule (this module's docstring).

    Args:
        cases: Predictions of scans that did not train the model, with references.
        labels: What is judged; a rule is of their values.
        crossfit: Score each patient under the rules that the others choose, so that the figures are honest though the
            stored rules are chosen on all. Without it figures are those of the scans that were chosen on.

    Returns:
        The rules chosen on all cases; none, with the reason, where there are fewer than `FEWEST` patients.
    """
    chooser = _Chooser(cases, labels)
    patients = tuple(dict.fromkeys(case.patient for case in cases))
    names = tuple(case.name for case in cases)
    before = {case.name: chooser.scores(case, ()) for case in cases}
    if len(patients) < FEWEST:
        return PostprocessingChoice(
            Postprocessing(), PostprocessedScores(before, before), names, f"fewer than {FEWEST} patients to choose by"
        )
    chosen = chooser.choose(cases)
    rules = dict.fromkeys(patients, chosen)
    if crossfit:
        rules = {own: chooser.choose([case for case in cases if case.patient != own]) for own in patients}
    after = {case.name: chooser.scores(case, rules[case.patient].rules) for case in cases}
    return PostprocessingChoice(chosen, PostprocessedScores(before, after, crossfit), names)


def gains_of_largest(
    cases: Sequence[JudgedCase], labels: LabelMap, beside: Postprocessing
) -> dict[str, tuple[float, float, int]]:
    """Mean Dice of each label before and after its largest component alone is kept, and over how many cases.

    Labels of nodes, which are many, and those whose largest component is a rule already are left out.

    Args:
        cases: Predictions of scans that did not train the model, with references.
        labels: What is judged.
        beside: The rules that the model has.
    """
    chooser, own = _Chooser(cases, labels), {rule.values for rule in beside.in_stock}
    named = {values: name for name, values in labels.covered.items()}
    found = {}
    for rule in chooser.largest:
        label = named.get(rule.values)
        if label is None or rule.values in own:
            continue
        judged = [case for case in cases if label not in case.unlabelled]
        pairs = [(chooser.scores(case, ())[label], chooser.scores(case, (rule,))[label]) for case in judged]
        if pairs:
            before, after = (statistics.fmean(column) for column in zip(*pairs, strict=True))
            found[label] = (before, after, len(pairs))
    return found


def score_postprocessing(
    cases: Sequence[JudgedCase], labels: LabelMap, postprocessing: Postprocessing
) -> PostprocessedScores:
    """Dice before and after given rules, of cases that played no part in their choice."""
    chooser = _Chooser(cases, labels)
    before = {case.name: chooser.scores(case, ()) for case in cases}
    return PostprocessedScores(before, {case.name: chooser.scores(case, postprocessing.rules) for case in cases})
