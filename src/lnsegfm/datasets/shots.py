"""Which scans are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from lnsegfm.errors import ConfigError
from lnsegfm.messages import counted


@dataclass(frozen=True)
class Split:
    """The cases trained on, in the order in which they were drawn, and the rest.

    Args:
        shots: Names of the cases that are trained on.
        held_out: Names of the others, sorted; those of subjects that are trained on are in neither.
    """

    shots: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [*self.shots, *self.held_out]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"Cases {', '.join(twice)}: named twice in one split. Give every case a name of its own.")

    def not_holding_out(self, cases: Collection[str]) -> Split:
        """The split without some of the held-out cases, which are then in neither part."""
        return replace(self, held_out=tuple(case for case in self.held_out if case not in cases))


def require_labelled(split: Split, empty: Sequence[str]) -> None:
    """Refuse to train on scans none of which holds a label.

    Args:
        split: The cases that are trained on.
        empty: Names of those whose labels hold nothing.

    Raises:
        ConfigError: All of them are.
    """
    if set(split.shots) <= set(empty):
        named = ", ".join(split.shots)
        raise ConfigError(
            f"Shots {named}: their labels are empty, so nothing is learned. Use more --shots or another --draw."
        )


def draw_shots(
    names: Sequence[str], shots: int | None, draw: int = 0, subjects: Mapping[str, str] | None = None
) -> Split:
    """Draw the cases to train on.

    The sorted names are permuted by a generator seeded with ``draw``, and the first ``shots`` of them are taken. So
    the order in which names arrive plays no part, and for one draw the cases of fewer shots are among those of more.

    Args:
        names: Names of all labelled cases.
        shots: How many to train on; None takes all, which leaves none held out.
        draw: Which draw; 0, 1, 2, ...
        subjects: The patient of each case, where known. A case of a patient whose other scan is trained on would make
            the held-out comparison too good: it is not held out.

    Raises:
        ConfigError: More shots than cases, fewer than one, a negative draw, or a name that occurs twice.
    """
    if not names:
        raise ConfigError("Cases: there is none to draw from. Give at least one labelled case.")
    if draw < 0:
        raise ConfigError(f"draw {draw}: draws are counted from 0. Use draw >= 0.")
    if shots is not None and shots < 1:
        raise ConfigError(f"shots {shots}: one trains on at least one case. Use shots >= 1.")
    if shots is not None and shots > len(names):
        most = len(names)
        held = f"at most {most - 1}, which leaves some to hold out, or " if most > 1 else ""
        there = f"there {'are' if most > 1 else 'is'} only {counted(most, 'labelled case')}"
        raise ConfigError(f"shots {shots}: {there}. Use {held}{most}, which holds out none.")
    import numpy as np  # `import lnsegfm` loads none

    ordered = sorted(names)
    permuted = [ordered[i] for i in np.random.default_rng([draw]).permutation(len(ordered))]
    taken = len(permuted) if shots is None else shots
    of = subjects or {}
    trained = {of[name] for name in permuted[:taken] if name in of}
    held_out = sorted(name for name in permuted[taken:] if of.get(name) not in trained)
    return Split(shots=tuple(permuted[:taken]), held_out=tuple(held_out))
