"""What to try next, from what a run has measured: each a sentence with its command, the likeliest cause first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lnsegfm.evaluation.domain_ranges import TrainingDomain
from lnsegfm.report import mask_advice, training_advice
from lnsegfm.report.advice_facts import Advice, LabelMeasure, RunFacts
from lnsegfm.report.comparison import Comparison

MOST = 5


def advice(
    record: Mapping[str, Any],
    comparison: Comparison | None,
    folder: str,
    measured: Mapping[str, LabelMeasure] | None = None,
    domains: Sequence[TrainingDomain] = (),
) -> tuple[Advice, ...]:
    """At most `MOST` things to try, none where every label is good.

    What is wrong with the scans comes first, then what stopped training too early, then what the network cannot see,
    what can be had without training, and last another method.

    Args:
        record: What the run's ``run.json`` holds.
        comparison: Base against adapted on the held-out cases; None where none was held out.
        folder: The run's; further runs are named beside it.
        measured: What the masks say of labels, by name.
        domains: The training domains of the run's model: the shots', then those of its bases.
    """
    if comparison is None:
        return training_advice.nothing_held_out(record, folder)
    facts = RunFacts(record, comparison, folder, measured or {}, domains)
    if not facts.weak:
        return ()
    found = [
        *mask_advice.sides(facts),
        *mask_advice.hu_shift(facts),
        *training_advice.steps(facts),
        *mask_advice.patch(facts),
        *mask_advice.label_volume(facts),
        *mask_advice.largest_component(facts),
        *training_advice.method(facts),
        *training_advice.hold_out_more(facts),
    ]
    return tuple({one.command: one for one in reversed(found)}.values())[::-1][:MOST]
