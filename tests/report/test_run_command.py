"""Law: whatever options a run was given, the command that its record gives is read as the same run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pytest

from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.report.asked_options import AskedOptions, as_text, option_labels
from lnsegfm.report.run_command import finetune_command, pretrain_command
from lnsegfm.workflows.pretrain_plan import PretrainSettings

from .command_lines import commands

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = {
    "--cases": "case_1,case_0,case_2",
    "--exclude": "case_3",
    "--keep-labels": "node",
    "--merge": "node=a+b",
    "--absent": "node",
    "--label": "node=1",
    "--allow-empty": None,
    "--iterations": "7",
    "--time-limit": "600",
    "--batch-size": "1",
    "--patch-size": "16 16 16",
    "--seed": "3",
    "--mirror": "none",
    "--no-mirroring": None,
    "--device": "cpu",
    "--workers": "0",
    "--lr": "0.003",
}
FINETUNE = SHARED | {
    "--method": "full",
    "--shots": "case_1,case_2",
    "--held-out": "case_0",
    "--draw": "2",
    "--recipe": "recipe.toml",
    "--set": "rule=adamw",
    "--warm-up": "2",
    "--early-stop": "90",
    "--map": "theirs=node",
    "--plans": "own_plans.json",
    "--configuration": "3d_fullres",
    "--folds": "all",
    "--source-data": "old data",
    "--min-transfer": "0.5",
    "--precision": "fp32",
    "--model-axes": "RAS",
    "--postprocessing": "none",
    "--no-postprocessing": None,
    "--smallest-difference": "0.05",
}
PRETRAIN = SHARED | {
    "--architecture": "resenc-m",
    "--preset": "default",
    "--plans": "own_plans.json",
    "--gpu-memory": "12.5",
    "--checkpointing": None,
    "--held-out": "0.25",
    "--gpus": "2",
    "--prepared": "float32",
}
OTHERWISE = {
    "--model",
    "--out",
    "--preprocessed",
    "--write-preprocessed",
    "--job",
    "--write-job",
    "--dry-run",
    "--json",
    "--prepare-only",
    "--on",
    "--jobs",
    "--part",
    "--help",
}
"""Options that name the base and the place, what is done with a job, and where scans are prepared."""


def words_of(options: Mapping[str, str | None]) -> list[str]:
    found: list[str] = []
    for option, text in options.items():
        found += [option] if text is None else [option, *text.split()] if option == "--patch-size" else [option, text]
    return found


def record_of(seen: Mapping[str, Any]) -> dict[str, Any]:
    """What a run would keep of a request, by the parts that write it."""
    asked = AskedOptions(
        model=str(seen["1"]),
        labels=option_labels(seen["labels"]),
        allow_empty=seen["allow_empty"],
        plans=as_text(seen["plans"]),
        source_data=as_text(seen["source_data"]),
        configuration=seen["choice"].configuration,
        recipe_file=as_text(seen["recipe_file"]),
        device=seen["device"],
        workers=seen["workers"],
        smallest_difference=seen.get("smallest_difference"),
    )
    recipe, data = seen["2"].to_json(), {"folder": str(seen["0"])}
    return json.loads(json.dumps({"recipe": recipe, "asked": asked.to_json(), "data": data}, default=str))


def options_of(command: str) -> set[str]:
    flags = [p for p in commands()[command].params if p.param_type_name == "option"]
    return {(p.secondary_opts[0] if p.secondary_opts and p.default else p.opts[0]) for p in flags} - OTHERWISE


def test_every_option_has_a_value_here():
    assert set(FINETUNE) == options_of("finetune")
    assert set(PRETRAIN) == options_of("pretrain")


WITHOUT = {"--no-postprocessing", "--recipe"}
MANY = [
    {option: text} if option != "--set" else {"--method": "full", option: text} for option, text in FINETUNE.items()
] + [
    {k: v for k, v in FINETUNE.items() if k not in WITHOUT},
    {"--recipe": "recipe.toml", "--lr": "auto", "--warm-up": "0", "--set": "rule=adamw"},
    {"--shots": "5"},
    {"--shots": "5,", "--held-out": "7,"},
    {"--lr": "auto"},
    {"--method": "dgst", "--set": "weight_lr=0.5"},
    {},
]


@pytest.mark.parametrize("options", MANY, ids=" ".join)
def test_a_finetune_is_read_again_as_it_was(asked, options):
    first = asked(["lnsegfm", "finetune", "our data", "--model", "base", "--out", "run", *words_of(options)])

    command = shlex.split(finetune_command(record_of(first), "run"))

    again = asked(command)
    if "--lr" not in options or options["--lr"] != "auto":
        first.pop("recipe_file"), again.pop("recipe_file")  # all that it holds stands in the options
    assert again == first


@pytest.mark.parametrize("name", sorted(METHODS))
def test_so_are_the_settings_of_every_method(asked, name):
    first = asked(["lnsegfm", "finetune", "data", "--model", "base", "--out", "run", "--method", name])

    again = asked(shlex.split(finetune_command(record_of(first), "run")))

    assert again == first
    assert again["2"].settings == load_method(name).settings()


PRETRAINED = [{option: text} for option, text in PRETRAIN.items() if option not in ("--gpu-memory",)] + [
    {"--preset": "default", "--gpu-memory": "12.5"},
    {k: v for k, v in PRETRAIN.items() if k != "--plans"},
    {"--held-out": "3"},
    {},
]


@pytest.mark.parametrize("options", PRETRAINED, ids=" ".join)
def test_a_pretraining_is_read_again_as_it_was(asked, options):
    first = asked(["lnsegfm", "pretrain", "our data", "--out", "base", *words_of(options)])
    settings: PretrainSettings = first["2"]
    besides = AskedOptions(
        labels=option_labels(first["labels"]),
        allow_empty=first["allow_empty"],
        plans=as_text(settings.plans),
        device=first["device"],
        workers=first["workers"],
    )
    record = {"data": {"folder": str(first["0"])}, "asked": besides.to_json() | settings.said()}

    again = asked(shlex.split(pretrain_command(json.loads(json.dumps(record, default=str)), "base")))

    assert again == first


def test_what_a_run_and_its_base_keep_is_their_command(run, world, lnsegfm_here):
    """From the files of finished runs, and whole: the same identity."""
    record = json.loads((run.folder / "run.json").read_text())
    done = lnsegfm_here(*shlex.split(record["command"])[1:], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["identity"] == record["identity"]
    base = json.loads((world.base / "run.json").read_text())
    words = shlex.split(base["command"])
    assert words[:3] == ["lnsegfm", "pretrain", base["data"]["folder"]]
    assert {"--plans", "--no-mirroring", "--held-out", "--device"} <= set(words)


def test_plans_labels_and_places_are_in_the_command_of_a_real_plan(world, tmp_path, lnsegfm_here):
    recipe = tmp_path / "my.toml"
    recipe.write_text('method = "dgst"\nlr_grid = [0.002, 0.004]\n')
    words = ["finetune", world.clinic, "--model", world.base, "--out", tmp_path / "run", "--recipe", recipe]
    words += ["--label", "node=1", "--plans", world.folder / "plans.json", "--source-data", world.folder / "source"]
    words += ["--lr", "auto", "--shots", "case_1,", "--absent", "node", "--iterations", 5, "--configuration"]
    first = lnsegfm_here(*words, "3d_fullres", "--dry-run")
    assert first.returncode == 0, first.stderr

    command = finetune_command(json.loads(first.stdout), str(tmp_path / "run"))

    again = lnsegfm_here(*shlex.split(command)[1:], "--dry-run")
    assert json.loads(again.stdout) == json.loads(first.stdout)
