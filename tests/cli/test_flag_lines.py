"""What ``predict`` says of flags at its end."""

from __future__ import annotations

from lnsegfm.cli.flag_lines import KINDS, REASONS, flag_lines
from lnsegfm.evaluation.flags import Flag


def flags(cases: int, *raised: tuple[str, str]) -> list[Flag]:
    return [Flag(f"P{case}", kind, reason.format(case), 1.0, 0.0) for case in range(cases) for kind, reason in raised]


def test_each_reason_of_a_few_cases_has_a_line():
    assert flag_lines([]) == []
    assert flag_lines(flags(2, ("hu", "It is dark."), ("volume", "It is large."))) == [
        "Review P0: It is dark.", "Review P0: It is large.", "Review P1: It is dark.", "Review P1: It is large.",
    ]  # fmt: skip
    many = flag_lines(flags(1, *[("border", f"Label {label} is cut.") for label in range(REASONS + 2)]))
    assert len(many) == REASONS + 1
    assert many[-1] == "Review P0: 2 more reasons in flags.json."


def test_of_many_cases_each_kind_has_a_line():
    raised = flags(5, ("volume", "It has {} ml."), ("orientation", "Nothing says on which axes."))
    raised.append(Flag("P9", "of-a-package", "Odd.", 1.0, 0.0))
    assert flag_lines(raised) == [
        "Review 6 cases; flags.json beside the masks has the reasons of each:",
        "  axes of the model not known, 5 cases (P0, P1, P2 and 2 others), Nothing says on which axes.",
        "  volume outside training, 5 cases (P0, P1, P2 and 2 others), such as P0: It has 0 ml.",
        "  of-a-package, 1 case (P9), Odd.",
    ]


def test_every_documented_kind_has_a_name():
    kinds = set((Flag.__doc__ or "").partition("What was checked:")[2].partition("reason:")[0].split("``")[1::2])
    assert kinds == set(KINDS)
