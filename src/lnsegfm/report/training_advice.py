"""Advice that follows from how a run was trained: its steps, its loss, its method, what it held out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lnsegfm.messages import counted
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.report.advice_facts import Advice, RunFacts
from lnsegfm.report.label_verdict import CLEAR_RATIO, volume_ratios
from lnsegfm.report.run_command import finetune_command, next_folder

FALLING_SE = 3.0
"""Standard errors by which the last eighth of the losses lies below the eighth before it while a loss still falls."""
FEWEST_LOSSES = 80
"""Fewest losses whose course says anything: an eighth of them are ten."""
FEWEST_SHOTS = 4
"""Shots at least of which some can be held out."""


def fall_at_the_end(losses: Sequence[float]) -> tuple[float, float] | None:
    """By how much the last eighth of the losses lies below the eighth before it, and its standard error.

    None where there are too few losses to say, or some that are no numbers.
    """
    part = len(losses) // 8
    if len(losses) < FEWEST_LOSSES or not all(map(math.isfinite, losses)):
        return None
    last, before = losses[-part:], losses[-2 * part : -part]
    error = math.sqrt((statistics.variance(last) + statistics.variance(before)) / part)
    return statistics.fmean(before) - statistics.fmean(last), error


def still_falling(losses: Sequence[float]) -> bool:
    """Whether the last eighth of the losses lies clearly below the eighth before it."""
    fall = fall_at_the_end(losses)
    return fall is not None and fall[0] > FALLING_SE * fall[1]


def steps(facts: RunFacts) -> list[Advice]:
    """More steps: where time cut them, where the loss still fell, or where there were too few to show anything."""
    record, training = facts.record, facts.record["training"]
    done, asked = training["iterations"], record["recipe"]["iterations"]
    if training.get("divergence") is not None or not done:
        return []
    if training["stopped_by"] == "time limit":
        asked = max(asked, done)
        sentence = f"The time limit stopped training after {done} of {asked} iterations: lift it."
        return [Advice("steps", sentence, facts.again("longer", iterations=asked, time_limit_s=None))]
    if still_falling(record["losses"]):
        fall, part = fall_at_the_end(record["losses"]), len(record["losses"]) // 8
        by = f"by {fall[0]:.2g} over the last {part}" if fall is not None else ""
        sentence = f"The loss was still falling after {done} iterations ({by}): train longer."
        return [Advice("steps", sentence, facts.again("longer", iterations=2 * max(asked, done), time_limit_s=None))]
    usual = load_method(record["recipe"]["method"]).training.iterations if record["recipe"]["method"] in METHODS else 0
    if len(record["losses"]) < FEWEST_LOSSES and done < usual and not facts.works:
        sentence = (
            f"Training took {counted(done, 'iteration')}, too few to show anything: the method's own recipe takes "
            f"{usual}."
        )
        return [Advice("steps", sentence, facts.again("longer", iterations=usual))]
    return []


def method(facts: RunFacts) -> list[Advice]:
    """The method that moves every weight: where volumes are clearly off and neither steps nor the loss explain it.

    Not for a label for which the base is better or ahead: there adaptation itself made it worse.
    """
    record = facts.record
    if record["recipe"]["method"] == "full" or record["training"].get("divergence") is not None or steps(facts):
        return []
    fall = fall_at_the_end(record["losses"])
    flat = f", and the loss no longer falls (by {max(fall[0], 0):.2g} at the end)" if fall is not None else ""
    found = []
    for label in facts.weak:
        ratios = volume_ratios(facts.comparison, label)
        middle = statistics.median(ratios) if ratios else 1.0
        if facts.base_ahead(label) or 1 / CLEAR_RATIO < middle < CLEAR_RATIO:
            continue
        size = f"typically {middle:.1f} times the reference's volume"
        sentence = f"{label}: masks have {size}{flat}. Try the method that moves every weight."
        changes: dict[str, Any] = {"method": "full", "settings": {}, "lr": None, "iterations": None, "warm_up": None}
        found.append((abs(math.log(max(middle, 1e-3))), Advice("volume", sentence, facts.again("full", **changes))))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])[:1]]


def hold_out_more(facts: RunFacts) -> list[Advice]:
    """More scans held out: where one subject alone was, which shows nothing of others."""
    if facts.comparison.outcome != "one subject" or len(facts.record["shots"]) < FEWEST_SHOTS:
        return []
    return [_held_out(facts.record, facts.folder, "One subject alone was held out, which shows nothing of others")]


def nothing_held_out(record: Mapping[str, Any], folder: str) -> tuple[Advice, ...]:
    """To hold some out, where none was and there are shots enough."""
    if len(record["shots"]) < FEWEST_SHOTS:
        return ()
    start = f"None of {len(record['shots'])} scans was held out, so nothing shows whether this helped"
    return (_held_out(record, folder, start),)


def _held_out(record: Mapping[str, Any], folder: str, start: str) -> Advice:
    shots, out = len(record["shots"]), max(1, len(record["shots"]) // 4)
    changes: dict[str, Any] = {"shots": shots - out, "held_out": None}
    command = finetune_command(record, next_folder(folder, "judged"), **changes)
    return Advice("hold out", f"{start}: hold out {out} of the {shots} shots too.", command)
