"""What ``lnsegfm finetune`` prints: what is about to be done, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lnsegfm.cli.shared_options import print_json
from lnsegfm.messages import counted, listed

if TYPE_CHECKING:
    from lnsegfm.report.runs_table import RunRow
    from lnsegfm.workflows.finetune import Run
    from lnsegfm.workflows.finetune_plan import FinetunePlan


def show_runs(rows: Sequence[RunRow], out: Path, *, as_json: bool) -> None:
    """Print what several runs gave, and end with code 1 where one failed."""
    from lnsegfm.report.runs_table import runs_json, runs_table, sentences_on_runs
    from lnsegfm.workflows.several_runs import TABLE

    if as_json:
        print_json(runs_json(rows))
    else:
        from rich.console import Console

        terminal = Console()
        terminal.print(runs_table(rows))
        for line in sentences_on_runs(rows):
            terminal.print(line, highlight=False, markup=False)
        print(f"Table    {out / TABLE}")
        print("Not for clinical use.")
    failed = [row for row in rows if row.failed]
    for row in failed:
        print(f"lnsegfm: {row.run.folder}: {row.failed}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def announce(planned: FinetunePlan, say: Callable[[str], None]) -> None:
    """Print what is about to be done: which weights fit, what trains."""
    from lnsegfm.workflows.left_out_members import members_text
    from lnsegfm.workflows.postprocessing_step import members_on_shots

    trainable = planned.trainable
    say(f"Base: {planned.transfer.summary()}")
    if planned.transfer.adapted or planned.transfer.fresh or planned.transfer.unused:
        for line in planned.transfer.lines():
            say(f"  {line}")
    say(
        f"Method {planned.method.name}: {trainable.parameters:,} of {trainable.total:,} parameters train, "
        f"one step changes at most {trainable.per_step:,} ({trainable.per_step / trainable.total:.3%})"
    )
    if planned.further:
        say(f"Folds: all {1 + len(planned.further)} of the base are adapted, one after the other")
    rates = planned.recipe.lr_grid if planned.method.learns else None
    if rates is not None:
        grid = ", ".join(map(str, rates))
        say(f"Learning rate: the best of {grid} on the shots; {len(rates)} trainings come before the run's own")
    if some := members_on_shots(planned):
        say(f"Postprocessing: chosen on the shots by {members_text(some)}")
    say(planned.orientation)
    if planned.mirror:
        say(planned.mirror)
    if planned.data.labels_from == "the base model":
        say(f"Labels: the data do not name them; taken as the base's ({planned.data.labels})")
    say(f"Trained on {counted(len(planned.split.shots), 'scan')}: {listed(planned.split.shots)}")
    if planned.split.held_out:
        say(f"Held out {counted(len(planned.split.held_out), 'scan')}: {listed(planned.split.held_out)}")
    else:
        say("No scan is held out: the run will not show whether it helped. Use --shots to hold some out.")


def show(run: Run) -> None:
    """Print base against adapted, and where the results are."""
    from rich.console import Console

    from lnsegfm.report.label_verdict import short_line, title
    from lnsegfm.report.verdict import forgetting
    from lnsegfm.training.loss_history import divergence_warning
    from lnsegfm.workflows.run_record import megabytes

    terminal = Console()
    comparison, source_data = run.evidence.comparison, run.evidence.source_data
    if comparison is not None:
        terminal.print(f"{title(comparison)}.", style="bold", highlight=False, markup=False)
        for label in comparison.labels if len(comparison.labels) > 1 else ():  # of one label the verdict says it all
            terminal.print(f"  {short_line(comparison, label)}", highlight=False, markup=False)
    terminal.print(run.evidence.verdict, highlight=False, markup=False)
    if source_data is not None:
        terminal.print(forgetting(source_data), highlight=False, markup=False)
    if run.evidence.flags:
        flagged = counted(len(run.evidence.flags), "held-out case")
        terminal.print(f"Review {flagged} with flags: the report says why.", highlight=False, markup=False)
    divergence = divergence_warning(run.record["training"].get("divergence"))
    if divergence is not None:
        terminal.print(divergence, style="bold red", highlight=False, markup=False)
    for line in run.record["postprocessing"]["lines"]:
        terminal.print(f"Postprocessing: {line}; the report has the figures.", highlight=False, markup=False)
    for one in run.record["advice"][:1]:
        terminal.print(f"Next     {one['sentence']}", highlight=False, markup=False)
        print(f"         {one['command']}")
    adapter = run.record["adapter"]
    print(f"Model    {run.model}")
    sizes = f"{megabytes(adapter['bytes'])}; the checkpoint has {megabytes(adapter['checkpoint_bytes'])}"
    print(f"Adapter  {run.folder / 'adapter.safetensors'} ({sizes})")
    print(f"Report   {run.folder / 'report.html'}")
    print("Not for clinical use.")
