"""``lnsegfm adapter``: a clinic passes on what it changed, and whoever has the base has the model."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from lnsegfm.errors import LnSegFmError
from lnsegfm.methods.lora import LoRA
from lnsegfm.models.adapter_files import ORIGIN, apply_adapter, describe_adapter
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import CHECKPOINT, read_model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from lnsegfm.training.training_job import FACTORS
from lnsegfm.weights.adapter import CARD, TENSORS
from lnsegfm.weights.checkpoint import read_checkpoint, write_checkpoint
from lnsegfm.weights.state import raw
from lnsegfm.workflows import finetune as finetuning
from lnsegfm.workflows.finetune import Run, finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.cli.conftest import PROGRESS, tree
from tests.conftest import Result
from tests.nnunet.stock import stock_predict
from tests.world import ITERATIONS, World

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS: dict[str, dict[str, Any]] = {"lora": LoRA(rank=1).settings()}
"""Rank 1, because a network of a few thousand weights has matrices that hardly exceed any factors."""


@pytest.fixture(scope="module")
def runs(world: World) -> dict[str, Run]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    changes = {name: {"settings": SETTINGS[name]} if name in SETTINGS else {} for name in FORMS}
    made = {name: world.run(f"adapter-{name}", name, **change) for name, change in changes.items()}
    torch.set_num_threads(threads)
    return made


FORMS = {"lora": "factors", "dgst": "entries", "spatial-adapter": "whole"}
"""A method for each way of storing."""


@pytest.fixture(scope="module")
def sent(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two files of each run, as they would be sent: without the run."""
    folder = tmp_path_factory.mktemp("sent")
    for name, run in runs.items():
        (folder / name).mkdir()
        for file in (TENSORS, CARD):
            shutil.copy(run.folder / file, folder / name)
    return {name: folder / name for name in runs}


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("method", FORMS)
def test_the_applied_model_is_the_runs(method, world, runs, sent, lnsegfm_here, tmp_path):
    out = tmp_path / "model"
    done = lnsegfm_here("adapter", "apply", world.base, sent[method], "--out", out)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert sorted(p.name for p in out.iterdir()) == ["dataset.json", "fold_0", ORIGIN, "plans.json"]
    for name in ("plans.json", "dataset.json"):
        assert json.loads((out / name).read_text()) == json.loads((runs[method].model / name).read_text())
    made, theirs = read_model(out).first, read_model(runs[method].folder).first
    assert list(made.weights) == list(theirs.weights)
    assert all(torch.equal(raw(made.weights[name]), raw(theirs.weights[name])) for name in made.weights)
    assert (made.trainer_name, made.mirroring_axes) == (theirs.trainer_name, theirs.mirroring_axes)
    assert not list(tmp_path.rglob(".partial-*"))

    before = tree(tmp_path)
    again = lnsegfm_here("adapter", "apply", world.base, runs[method].folder, "--out", out, "--json")
    told = json.loads(again.stdout)
    assert (told["written"], told["method"]) == (False, method)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("method", FORMS)
def test_the_run_keeps_no_factors_and_its_adapter_holds_what_it_should(method, runs):
    folder = runs[method].folder
    assert not list(folder.rglob("factors*"))
    parts = describe_adapter(folder)["module_groups"]
    held = {form: sum(part["stored"][form] for part in parts) for form in ("whole", "entries", "factors")}
    assert held[FORMS[method]] > 0
    assert method == "lora" or not held["factors"]


@pytest.mark.parametrize("method", ["lora", "spatial-adapter"])
def test_masks_of_the_applied_model_are_the_runs(method, world, runs, sent, tmp_path):
    """One of the two by stock nnU-Net, in a process that knows nothing of this package's environment."""
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(world.clinic / "imagesTr" / "case_0_0000.nii.gz", images)
    options = PredictOptions(mirroring=False, exact=True)  # rounded as stock rounds: a tie goes the same way
    out = apply_adapter(world.base, sent[method], tmp_path / "model").out
    scans = find_scans(images, 1).cases
    predict_cases(read_model(runs[method].folder), scans, tmp_path / "theirs", options)
    if method == "lora":
        done = stock_predict(out, images, tmp_path / "made", "--disable_tta")
        assert done.returncode == 0, done.stderr
    else:
        predict_cases(read_model(out), scans, tmp_path / "made", options)
    np.testing.assert_array_equal(*(voxels(tmp_path / name / "case_0.nii.gz") for name in ("made", "theirs")))


def test_another_base_is_refused_naming_both(runs, sent, lnsegfm_here, tmp_path):
    done = lnsegfm_here("adapter", "apply", runs["dgst"].folder, sent["lora"], "--out", tmp_path / "model")
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("lnsegfm: ")]
    card = json.loads((sent["lora"] / CARD).read_text())
    assert card["base_sha256"][:12] in said
    assert read_model(runs["dgst"].folder).first.weights_sha256[:12] in said
    assert not list(tmp_path.iterdir())


def test_another_base_is_refused_though_the_model_is_there(world, runs, sent, lnsegfm_here, tmp_path):
    apply_adapter(world.base, sent["dgst"], tmp_path / "model")
    done = lnsegfm_here("adapter", "apply", runs["lora"].folder, sent["dgst"], "--out", tmp_path / "model")
    assert done.returncode == 2
    assert "it belongs to the base hash" in done.stderr


def test_an_out_that_holds_something_else_is_left_alone(world, runs, sent, lnsegfm_here, tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.doc").write_text("years of work")
    other = apply_adapter(world.base, sent["dgst"], tmp_path / "other").out
    run = Path(shutil.copytree(runs["lora"].folder, tmp_path / "run"))
    edited = apply_adapter(world.base, sent["lora"], tmp_path / "edited").out
    plans = json.loads((edited / "plans.json").read_text())
    (edited / "plans.json").write_text(json.dumps(plans | {"dataset_name": "Dataset002_Other"}))
    before = tree(tmp_path)
    for out in (thesis, other, run, edited, thesis / "thesis.doc"):
        done = lnsegfm_here("adapter", "apply", world.base, sent["lora"], "--out", out)
        assert done.returncode == 2, out
        assert str(out) in done.stderr
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert apply_adapter(world.base, sent["lora"], tmp_path / "empty").written


def test_a_death_while_writing_leaves_no_model(world, sent, tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lnsegfm.models.model_folder.write_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        apply_adapter(world.base, sent["lora"], tmp_path / "model")
    assert not list(tmp_path.iterdir())


def killed(planned: Any, out: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, at, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(planned, out, device="cpu", workers=0)


@pytest.mark.parametrize("at", ["_write_adapter", "compare_held_out", "finetune_record"])
def test_a_run_killed_after_its_model_ends_with_the_same_adapter(at, world, runs, tmp_path, monkeypatch):
    out = tmp_path / "run"
    planned = plan(world.clinic, world.base, world.recipe("lora", settings=SETTINGS["lora"]))
    killed(planned, out, monkeypatch, at)
    assert (out / "model" / "fold_0" / CHECKPOINT).is_file()
    assert (out / FACTORS).is_file()
    assert (out / CARD).is_file() == (at != "_write_adapter")
    finetune(planned, out, device="cpu", workers=0)
    assert (out / TENSORS).read_bytes() == (runs["lora"].folder / TENSORS).read_bytes()
    assert json.loads((out / CARD).read_text())["factors"]
    assert not (out / "work").exists()


def test_running_a_finished_run_again_keeps_its_factors(world, runs):
    folder = runs["lora"].folder
    before = {name: (folder / name).read_bytes() for name in (TENSORS, CARD)}
    again = world.run("adapter-lora", "lora", settings=SETTINGS["lora"])
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert again.record["adapter"] == runs["lora"].record["adapter"]


def test_an_adapter_that_was_cut_short_is_written_anew(world, runs, tmp_path, monkeypatch):
    """Killed between its two files, or damaged since."""
    out = tmp_path / "run"
    planned = plan(world.clinic, world.base, world.recipe("lora", settings=SETTINGS["lora"]))
    killed(planned, out, monkeypatch, "compare_held_out")
    whole = (out / TENSORS).read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damage in ((CARD, b""), (TENSORS, whole[:-1]), (TENSORS, flipped), (CARD, None)):
        name, content = damage
        (out / name).unlink() if content is None else (out / name).write_bytes(content)
        killed(planned, out, monkeypatch, "compare_held_out")
        assert (out / TENSORS).read_bytes() == whole


def test_show_tells_what_it_is(world, runs, sent, lnsegfm_here):
    done = lnsegfm_here("adapter", "show", sent["lora"])
    assert done.returncode == 0, done.stderr
    for said in ("lora", "rank=1", "node=1", "CT", "16 x 16 x 16", "by factors", "not known"):
        assert said in done.stdout, said
    told = json.loads(lnsegfm_here("adapter", "show", sent["lora"] / TENSORS, "--json").stdout)
    assert told["base"] == {"sha256": read_model(world.base).first.weights_sha256}
    assert told["settings"]["rank"] == 1
    assert told["spacing_mm"] == [2.0, 1.0, 1.5]
    assert told["bytes"] == {n: (sent["lora"] / f"adapter.{n}").stat().st_size for n in ("safetensors", "json")}
    assert set(told["versions"]) >= {"lnsegfm", "torch"}
    assert all(part["change"] is None for part in told["module_groups"])
    assert runs["lora"].record["versions"] == told["versions"]


def test_show_says_what_stayed(sent, lnsegfm_here):
    (row,) = [
        line
        for line in lnsegfm_here("adapter", "show", sent["spatial-adapter"]).stdout.splitlines()
        if "encoder.stages" in line
    ]
    assert "unchanged" in row


def test_show_holds_an_adapter_against_a_base(world, runs, sent, lnsegfm_here):
    done = lnsegfm_here("adapter", "show", sent["dgst"], "--base", world.base)
    assert "it fits" in done.stdout
    told = json.loads(lnsegfm_here("adapter", "show", sent["dgst"], "--base", world.base, "--json").stdout)
    moved = sum(part["change"]["changed"] for part in told["module_groups"])
    assert moved == runs["dgst"].record["adapter"]["entries"]
    assert sum(part["change"]["entries"] for part in told["module_groups"]) == runs["dgst"].record["trainable"]["total"]
    assert all(0 < part["change"]["relative_change"] < 1 for part in told["module_groups"])

    other = lnsegfm_here("adapter", "show", sent["dgst"], "--base", runs["lora"].folder, "--json")
    assert other.returncode == 0
    told = json.loads(other.stdout)
    assert told["given_base"]["fits"] is False
    assert all(part["change"] is None for part in told["module_groups"])


def test_a_new_module_is_a_part_of_its_own(world, sent):
    parts = {part["name"]: part for part in describe_adapter(sent["spatial-adapter"], world.base)["module_groups"]}
    added = parts["spatial_adapter"]
    assert added["change"]["new"] == added["change"]["entries"] == added["values"]
    assert all(not any(part["stored"].values()) for name, part in parts.items() if name.startswith("encoder"))


def test_the_bases_terms_travel_with_the_adapter(world, lnsegfm_here, tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    install(world.base / "model", "organs", ImportOptions(licence="CC-BY-NC-4.0", citation="A. Author, 2024"))
    run = finetune(plan(world.clinic, Path("organs"), world.recipe("bias")), tmp_path / "run", device="cpu", workers=0)
    base = json.loads((run.folder / CARD).read_text())["base"]
    assert {key: base[key] for key in ("name", "licence", "citation")} == {
        "name": "organs",
        "licence": "CC-BY-NC-4.0",
        "citation": "A. Author, 2024",
    }
    assert str(tmp_path) not in (run.folder / CARD).read_text()
    shown = lnsegfm_here("adapter", "show", run.folder).stdout
    applied = lnsegfm_here("adapter", "apply", "organs", run.folder, "--out", tmp_path / "model").stdout
    for said in ("organs", "CC-BY-NC-4.0", "A. Author, 2024"):
        assert said in shown
        assert said in applied
    assert json.loads((tmp_path / "model" / ORIGIN).read_text())["base"] == base


@pytest.fixture
def spoilt(sent: dict[str, Path], tmp_path: Path) -> Path:
    """An adapter to spoil."""
    return Path(shutil.copytree(sent["lora"], tmp_path / "spoilt"))


@pytest.fixture
def refused(world: World, spoilt: Path, lnsegfm_here: Callable[..., Result], tmp_path: Path) -> Callable[[], str]:
    """Both commands on the spoilt adapter: code 2, one line, nothing written; give what apply says."""

    def run() -> str:
        before = tree(tmp_path)
        done = lnsegfm_here("adapter", "apply", world.base, spoilt, "--out", tmp_path / "model")
        (said,) = [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line) and "Reading" not in line]
        assert (done.returncode, done.stdout) == (2, "")
        assert said.startswith("lnsegfm: ")
        assert tree(tmp_path) == before
        return said

    return run


@pytest.mark.parametrize("name", [CARD, TENSORS])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "noise"])
def test_damaged_files(name, damage, spoilt, refused):
    file = spoilt / name
    content = file.read_bytes()
    made = {"empty": b"", "half": content[: len(content) // 2], "noise": bytes(reversed(content))}
    file.unlink() if damage == "gone" else file.write_bytes(made[damage])
    assert str(spoilt) in refused()


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    card = json.loads((folder / CARD).read_text())
    change(card)
    (folder / CARD).write_text(json.dumps(card))


def configuration(card: dict[str, Any]) -> dict[str, Any]:
    return card["plans"]["configurations"][card["configuration"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: configuration(c)["architecture"].update(network_class_name="os.system"), "wants os.system called"),
        (
            lambda c: configuration(c)["architecture"]["arch_kwargs"].update(conv_op="torch.hub.load"),
            "wants torch.hub.load called",
        ),
        (
            lambda c: c["plans"]["configurations"].update(other={"architecture": {"network_class_name": "os.system"}}),
            "Copy the adapter again",
        ),
        (lambda c: c.update(plans=[]), "not the description of a model"),
        (lambda c: c.update(configuration="2d"), "'2d' is missing"),
        (lambda c: c.update(trainer_name="nnUNetTrainer_ofAStranger"), "has no trainer of that name"),
        (lambda c: c.update(trainer_name=3), "not the description of a model"),
        (lambda c: c.update(mirroring_axes="all"), "not the description of a model"),
        (lambda c: c["dataset_json"].update(labels={}), "Labels"),
        (lambda c: c["dataset_json"].update(labels={"background": 0, "a": 1, "b": 2}), "do not fit its own plans"),
        (lambda c: c["dataset_json"].update(channel_names={"first": "CT"}), "not a table of channels"),
        (lambda c: c["dataset_json"].update(file_ending="/../../x"), "file_ending"),
        (lambda c: c.update(method=None), "not the description of a model"),
        (lambda c: c.update(base={"licence": 3}), "not the description of a model"),
        (lambda c: c["names"].append("stranger"), "The adapter is damaged"),
    ],
)
def test_descriptions_that_cannot_be(change, said, spoilt, refused):
    edit(spoilt, change)
    assert said in refused()


def test_what_would_move_a_terminals_cursor_is_not_printed(world, spoilt, lnsegfm_here, tmp_path):
    """Colours are nobody's here; a licence that erases itself would be a bad joke."""
    edit(spoilt, lambda c: c.update(base={"licence": "MIT\x1b[2J\x1b[1;1H", "name": "[bold]x[/bold]"}))
    for words in (("show", spoilt), ("apply", world.base, spoilt, "--out", tmp_path / "model")):
        done = lnsegfm_here("adapter", *words)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert "[bold]x[/bold]" in done.stdout


JUNK: list[Any] = [None, True, -1, 0, 3, 2**70, 1.5, "", "os.system", "3d_fullres", [], [1, 2], {}, {"a": []}, [[[]]]]


def places(table: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in nested tables and lists, those of names and aliases but for a few."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in entries:
        if key in ("names", "same"):
            continue
        yield table, key
        yield from places(value)


def test_spoilt_descriptions(world, sent, spoilt, tmp_path):
    """A model that can be read, or one of the project's errors and nothing written."""
    whole = json.loads((sent["lora"] / CARD).read_text())
    draw = random.Random(0)
    outcomes = set()
    for _ in range(40):
        card = copy.deepcopy(whole)
        container, key = draw.choice(list(places(card)))
        if isinstance(container, dict) and draw.random() < 0.3:
            del container[key]
        else:
            container[key] = copy.deepcopy(draw.choice(JUNK))
        (spoilt / CARD).write_text(json.dumps(card))
        out, said = tmp_path / "model", ""
        try:
            describe_adapter(spoilt, world.base)
            apply_adapter(world.base, spoilt, out)
            read_model(out)
            shutil.rmtree(out)
            outcomes.add(True)
        except LnSegFmError as error:
            outcomes.add(False)
            said = str(error)
        assert "\n" not in said
        assert not out.exists()
        assert not list(tmp_path.glob(".partial-*"))
    assert outcomes == {True, False}


def test_a_base_in_other_clothes_is_the_same_base(world, sent, tmp_path):
    """What counts is the weights: the base may have been renamed, or written by another program."""
    base = Path(shutil.copytree(world.base / "model", tmp_path / "base"))
    file = base / "fold_0" / CHECKPOINT
    there = read_checkpoint(file)
    write_checkpoint(file, type(there)(**{**vars(there), "weights": dict(reversed(there.weights.items()))}))
    assert apply_adapter(base, sent["lora"], tmp_path / "model").written


def test_iterations_are_those_of_the_world(runs):
    assert all(run.record["training"]["iterations"] in (0, ITERATIONS) for run in runs.values())
