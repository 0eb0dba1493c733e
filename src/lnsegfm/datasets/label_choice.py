"""Which labels of a dataset a run uses: some of them alone, or several as one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.spelling import nearest

if TYPE_CHECKING:
    from lnsegfm.datasets.dataset import Dataset
    from lnsegfm.datasets.labels import LabelMap

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelChoice:
    """Labels that are kept, dropped and merged; the masks' files stay as they are.

    Args:
        keep: The only labels that are used, by their names after merging; () uses all. What is not kept is background.
        merge: Name of a merged label to the names of the labels that it consists of.

    Raises:
        ConfigError: A label in two merged ones, or a merged label that is not kept.
    """

    keep: Names = ()
    merge: Mapping[str, Names] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = [part for parts in self.merge.values() for part in parts]
        if twice := [part for part in parts if parts.count(part) > 1]:
            raise ConfigError(f"--merge: label {twice[0]} is named twice. Put each label into one merged label.")
        if self.keep and (lost := [name for name in self.merge if name not in self.keep]):
            raise ConfigError(f"--merge {lost[0]}: --keep-labels leaves it out. Name it there too.")

    def __bool__(self) -> bool:
        return bool(self.keep or self.merge)

    def of(self, labels: LabelMap) -> LabelMap:
        """The chosen labels, with the values that they cover.

        Raises:
            ConfigError: A label that there is not, a name that is taken, or labels of regions.
        """
        if not self:
            return labels
        if labels.regions:
            raise ConfigError(
                f"--merge, --keep-labels: {labels} are regions, which overlap as they are. Change them in dataset.json."
            )
        from lnsegfm.datasets.labels import LabelMap

        merged = {part: name for name, parts in self.merge.items() for part in parts}
        _require_known("--merge", merged, labels.names)
        for name in self.merge:
            if name in labels.names and name not in self.merge[name]:
                raise ConfigError(f"--merge {name}: a label that is not part of it has this name. Use another.")
        covered: dict[str, list[int]] = {}
        for label, values in labels.covered.items():
            covered.setdefault(merged.get(label, label), []).extend(values)
        _require_known("--keep-labels", self.keep, covered)
        kept = {name: values for name, values in covered.items() if not self.keep or name in self.keep}
        return LabelMap(
            {name: min(values) for name, values in kept.items()},
            labels.ignore,
            merged=tuple((name, tuple(sorted(values))) for name, values in kept.items() if len(values) > 1),
            dropped=frozenset(v for name, values in covered.items() if name not in kept for v in values),
        )

    def fitting(self, labels: LabelMap | None) -> LabelMap | None:
        """The chosen of other labels of the same masks' kind; labels that lack the parts, or are chosen, stay."""
        parts = {part for parts in self.merge.values() for part in parts}
        if labels is None or not self or not parts <= set(labels.names):
            return labels
        return LabelChoice(merge=self.merge).of(labels)

    def unlabelled(self, names: Collection[str]) -> frozenset[str]:
        """Labels that nobody annotated, after the choice: a merged one where any of its parts is not annotated."""
        merged = {part: name for name, parts in self.merge.items() for part in parts}
        after = {merged.get(name, name) for name in names}
        return frozenset(name for name in after if not self.keep or name in self.keep)

    def on(self, dataset: Dataset) -> Dataset:
        """The dataset with the chosen labels.

        Raises:
            ConfigError: As `of`.
        """
        if not self:
            return dataset
        cases = tuple(replace(case, unlabelled=self.unlabelled(case.unlabelled)) for case in dataset.cases)
        return replace(dataset, labels=self.of(dataset.labels), cases=cases)


def comma_separated(options: Iterable[str] | None) -> Names:
    """Names of ``--keep-labels``, repeated or with commas between them."""
    return tuple(name.strip() for option in options or () for name in option.split(",") if name.strip())


def merged_labels(options: Iterable[str]) -> dict[str, Names]:
    """Read ``NAME=A+B`` options.

    Raises:
        ConfigError: One of another form, or a name given twice.
    """
    found: dict[str, Names] = {}
    for option in options:
        name, equals, parts = option.partition("=")
        each = tuple(part.strip() for part in parts.split("+") if part.strip())
        if not equals or not name.strip() or not each or name.strip() in found:
            raise ConfigError(f"--merge {option}: not NAME=A+B, or a name given twice. Write Parotid=Left+Right.")
        found[name.strip()] = each
    return found


def _require_known(option: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name}: the data have no such label. {nearest(name, known)}")
