"""The package of docs/extend.md, outside the tree: checked, then used by every command that its parts appear in."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.evaluation.evaluation_files import read_evaluation
from lnsegfm.imaging.files import image_files, read_mask, read_volume, stem
from lnsegfm.methods.table import load_method
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.cards import has_deep_supervision
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.training import named_trainers
from lnsegfm.weights.checkpoint import read_checkpoint
from tests.conftest import Result
from tests.nnunet.stock import QUICK, nnunet_world, stock
from tests.plugins.packages import install_page, page_files, write_files

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
MODULES = ("ln_extras", *(f"ln_extras.{Path(name).stem}" for name in page_files() if name.startswith("ln_extras/")))
Command = Callable[..., Result]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = install_page(tmp_path_factory.mktemp("extras"))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for module in MODULES:
        sys.modules.pop(module, None)


@pytest.fixture(scope="module")
def adapted(package: Path, world: Any) -> Any:
    return world.run("norm-scale", "norm-scale", iterations=4)


def test_the_packages_own_tests_pass(package: Path, tmp_path: Path) -> None:
    """As the page has them, in a process that knows the package by its metadata alone."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "tests")]
    paths = os.pathsep.join([str(package), *filter(None, sys.path)])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout


def test_finetune_by_its_method_moves_what_its_card_says(adapted: Any, world: Any) -> None:
    record = json.loads((adapted.folder / "run.json").read_text())
    assert record["recipe"]["method"] == "norm-scale"
    base = read_checkpoint(world.base / "model" / "fold_0" / "checkpoint_final.pth").weights
    model = read_checkpoint(adapted.folder / "model" / "fold_0" / "checkpoint_final.pth").weights
    moved = {key for key in base if not torch.equal(base[key], model[key])}
    scales = {key for key in base if key.endswith(".norm.weight") and ".all_modules." not in key}
    assert scales & moved
    assert all(".seg_layers." in key or ".norm.weight" in key or "all_modules.1.weight" in key for key in moved)


def test_its_recipe_follows_from_its_card(package: Path, lnsegfm_here: Command) -> None:
    text = lnsegfm_here("methods", "--recipe", "norm-scale").stdout
    assert text.startswith('# norm-scale: the scale of every norm and the head move\nmethod = "norm-scale"\n')
    assert "\nlr = 0.003\n" in text
    told = json.loads(lnsegfm_here("methods", "norm-scale", "--json").stdout)["norm-scale"]
    assert 0 < told["share_percent"] < 0.03
    assert "nnUNetTrainer_norm_scale" in lnsegfm_here("env", "--list").stdout


def test_nnunet_finds_and_makes_its_trainer(
    package: Path, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lnsegfm_here: Command
) -> None:
    folders = nnunet_world(world.base, world.clinic, tmp_path / "native")
    for variable, value in (folders | QUICK).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    (line,) = lnsegfm_here("env").stdout.splitlines()
    monkeypatch.setenv("nnUNet_extTrainer", line.partition("=")[2])
    with nnunet_environment():
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        cls = recursive_find_trainer_class_by_name("nnUNetTrainer_norm_scale")
    assert cls is named_trainers.nnUNetTrainer_norm_scale  # type: ignore[attr-defined]
    plans = dict(read_model(world.base).plans) | {"dataset_name": "Dataset001_Scenes", "continue_training": False}
    description = json.loads((world.clinic / "dataset.json").read_text())
    trainer = cls(plans, "3d_fullres", 0, description, torch.device("cpu"))
    assert trainer.method == load_method("norm-scale")


@pytest.mark.long
def test_nnunetv2_train_trains_by_it(package: Path, world: Any, tmp_path: Path, lnsegfm: Command) -> None:
    folders = nnunet_world(world.base, world.clinic, tmp_path)
    (line,) = lnsegfm("env", PYTHONPATH=str(package)).stdout.splitlines()
    variables = {
        "nnUNet_extTrainer": line.partition("=")[2],
        "LNSEGFM_EPOCHS": "1",
        "LNSEGFM_ITERATIONS": "2",
        "PYTHONPATH": os.pathsep.join([str(package), *filter(None, sys.path)]),
    }
    words = ("001", "3d_fullres", "0", "-tr", "nnUNetTrainer_norm_scale", "-device", "cpu", "-pretrained_weights")
    base = world.base / "model" / "fold_0" / "checkpoint_final.pth"
    done = stock("nnUNetv2_train", *words, base, **folders, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.rglob("nnUNetTrainer_norm_scale__*/fold_0/checkpoint_final.pth"))


def test_predict_writes_its_format_and_evaluate_shows_its_metric(
    adapted: Any, world: Any, tmp_path: Path, lnsegfm_here: Command
) -> None:
    out, scores = tmp_path / "masks", tmp_path / "scores"
    scan = image_files(world.clinic / "imagesTr")[0]
    words = ("--out", out, "--format", "nifti,npz", "--device", "cpu", "--no-mirroring")
    done = lnsegfm_here("predict", adapted.folder, scan, *words)
    assert done.returncode == 0, done.stderr
    (mask,) = image_files(out)[:1]
    name = stem(mask)
    with np.load(out / f"{name}.npz") as written:
        assert np.array_equal(written["voxels"], read_mask(mask)[0])
    references = tmp_path / "references"
    references.mkdir()
    shutil.copy(world.clinic / "labelsTr" / f"{name}.nii.gz", references)
    shutil.copy(world.clinic / "dataset.json", references)
    masks = tmp_path / "alone"
    masks.mkdir()
    shutil.copy(mask, masks / f"{name}.nii.gz")
    done = lnsegfm_here("evaluate", masks, references, "--metric", "volume_error_ml", "--out", scores)
    assert done.returncode == 0, done.stderr
    assert "Volume error ml" in done.stdout
    assert "Volume error ml" in (scores / "report.html").read_text(encoding="utf-8")
    evaluation = read_evaluation(scores)
    for label, score in evaluation.cases[0].labels.items():
        assert score.value("volume_error_ml") == pytest.approx(abs(score.volume_difference_ml)), label
    assert evaluation.metrics["volume_error_ml"].bounds == (0.0, float("inf"))
    with (scores / "evaluation.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["volume_error_ml"]) == pytest.approx(abs(float(row["volume_difference_ml"])))


def test_an_evaluation_is_read_without_the_package_that_measured_it(
    adapted: Any, world: Any, tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lnsegfm

    reference = image_files(world.clinic / "labelsTr")[0]
    evaluation = lnsegfm.evaluate(
        [reference], [reference], labels={"lymph_node": 1, "other": 2}, metrics=["volume_error_ml"], partial=True
    )
    content = json.loads(json.dumps(evaluation.to_json()))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
    again = type(evaluation).from_json(content)
    assert again.to_json() == evaluation.to_json()
    assert again.summary()["lymph_node"]["volume_error_ml"].mean == 0.0


def test_a_scan_of_its_format_is_read_predicted_and_trained_on(
    adapted: Any, world: Any, tmp_path: Path, lnsegfm_here: Command
) -> None:
    data = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
        for file in image_files(world.clinic / folder):
            voxels, grid = read_volume(file)
            place = data / folder / f"{stem(file)}.npz"
            np.savez(place, voxels=voxels, spacing_mm=grid.spacing_mm, origin_mm=grid.origin_mm)
            assert read_volume(place)[1] == grid
            assert np.array_equal(read_volume(place)[0], voxels)
    description = json.loads((world.clinic / "dataset.json").read_text()) | {"file_ending": ".npz"}
    (data / "dataset.json").write_text(json.dumps(description))
    done = lnsegfm_here("data", "check", data)
    assert done.returncode == 0, done.stdout + done.stderr
    first = image_files(data / "imagesTr")[0]
    done = lnsegfm_here(
        "predict", adapted.folder, first, "--out", tmp_path / "out", "--device", "cpu", "--no-mirroring"
    )
    assert done.returncode == 0, done.stderr
    (mask,) = image_files(tmp_path / "out")
    assert mask.name.endswith(".nii.gz")

    other = lnsegfm_here("predict", adapted.folder, image_files(world.clinic / "imagesTr")[0], "--out",
                         tmp_path / "same", "--device", "cpu", "--no-mirroring")  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert np.array_equal(read_mask(mask)[0], read_mask(image_files(tmp_path / "same")[0])[0])

    from lnsegfm.workflows.finetune import finetune
    from lnsegfm.workflows.finetune_plan import plan

    run = finetune(plan(data, world.base, world.recipe("norm-scale", iterations=2)), tmp_path / "run", device="cpu")
    assert read_model(run.folder).file_ending == ".nii.gz"


def test_its_set_is_listed_and_converted(package: Path, tmp_path: Path, lnsegfm_here: Command) -> None:
    assert "npz-pairs" in lnsegfm_here("data", "convert").stdout
    assert "Pairs of NumPy files" in lnsegfm_here("data", "convert", "npz-pairs").stdout
    source = tmp_path / "source"
    source.mkdir()
    scan = np.random.default_rng(0).normal(0, 100, (6, 7, 8)).round().astype(np.int16)
    for name, voxels in (("a_scan", scan), ("a_mask", (scan > 50).astype(np.uint8))):
        np.savez(source / f"{name}.npz", voxels=voxels, spacing_mm=(3, 1, 1), origin_mm=(0, 0, 0))
    done = lnsegfm_here("data", "convert", "npz-pairs", source, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read_volume(tmp_path / "out" / "imagesTr" / "a_0000.nii.gz")[0], scan)


def test_its_command_runs(package: Path, world: Any, lnsegfm_here: Command) -> None:
    mask = image_files(world.clinic / "labelsTr")[0]
    done = lnsegfm_here("count-voxels", mask)
    assert (done.returncode, done.stdout) == (0, f"{int((read_mask(mask)[0] > 0).sum())}\n")
    assert lnsegfm_here("count-voxels", "nowhere.nii.gz").returncode == 2


def test_a_model_of_its_network_is_read_adapted_and_predicts(
    package: Path, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lnsegfm_here: Command
) -> None:
    assert not has_deep_supervision("ln_extras.networks.TwoLayers", {})
    model = tmp_path / "base"
    shutil.copytree(world.base / "model", model)
    plans = json.loads((model / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["architecture"] = {
        "network_class_name": "ln_extras.networks.TwoLayers",
        "arch_kwargs": {"features": 4, "strides": [[1, 1, 1]]},
        "_kw_requires_import": [],
    }
    (model / "plans.json").write_text(json.dumps(plans))
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["init_args"]["plans"] = plans
    from ln_extras.networks import TwoLayers  # type: ignore[import-not-found]

    torch.manual_seed(0)
    content["network_weights"] = TwoLayers(1, 1 + len(world_labels(world)), features=4, strides=[]).state_dict()
    torch.save(content, file)

    network = build_network(read_checkpoint(file), deep_supervision=False)
    assert {str(part.role) for part in parameters_of(network)} == {"head", "weight", "bias", "norm-weight", "norm-bias"}

    from lnsegfm.workflows.finetune import finetune
    from lnsegfm.workflows.finetune_plan import plan

    run = finetune(plan(world.clinic, model, world.recipe("dgst", iterations=2)), tmp_path / "run", device="cpu")
    scan = image_files(world.clinic / "imagesTr")[0]
    done = lnsegfm_here("predict", run.folder, scan, "--out", tmp_path / "out", "--device", "cpu", "--no-mirroring")
    assert done.returncode == 0, done.stderr

    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
    refused = lnsegfm_here("predict", run.folder, scan, "--out", tmp_path / "no", "--device", "cpu")
    assert refused.returncode == 2
    assert "it wants ln_extras.networks.TwoLayers called" in refused.stderr


def world_labels(world: Any) -> dict[str, int]:
    labels = json.loads((world.base / "model" / "dataset.json").read_text())["labels"]
    return {name: value for name, value in labels.items() if value != 0}


@pytest.mark.long
def test_a_method_in_the_tree_is_one_file_one_line_and_one_command(world: Any, tmp_path: Path) -> None:
    """A copy of the repository, to which the page's method is added as the page says."""
    for folder in ("src", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    methods = tmp_path / "src" / "lnsegfm" / "methods"
    (methods / "norm_scale.py").write_text(page_files()["ln_extras/methods.py"])
    table = (methods / "table.py").read_text()
    head = "from lnsegfm.methods.random_dynamic import RandomDynamic\n"
    assert head in table
    table = table.replace(head, f"from lnsegfm.methods.norm_scale import NormScale\n{head}")
    (methods / "table.py").write_text(
        table.replace("        BoundedDGST,\n", "        BoundedDGST,\n        NormScale,\n")
    )

    def run(*words: object) -> Result:
        variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "src"), str(ROOT)]), "COLUMNS": "200"}
        return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False,
                              cwd=tmp_path, env=variables)  # fmt: skip

    done = run(tmp_path / "docs" / "tables.py")
    assert done.returncode == 0, done.stderr
    assert "norm-scale" in json.loads((methods / "shares.json").read_text())
    for page, mentions in (("methods.md", 3), ("env.md", 1)):
        assert (tmp_path / "docs" / page).read_text(encoding="utf-8").count("`norm-scale`") == mentions
    assert "norm-scale" in run("-m", "lnsegfm", "methods").stdout
    assert "nnUNetTrainer_norm_scale" in run("-m", "lnsegfm", "env", "--list").stdout
    done = run("-m", "lnsegfm", "finetune", world.clinic, "--model", world.base, "--method", "norm-scale", "--out",
               "run", "--device", "cpu", "--iterations", "3", "--shots", "2", "--no-mirroring")  # fmt: skip
    assert done.returncode == 0, done.stderr
    laws = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml")
    files = [ROOT / "tests" / "methods" / f"test_{name}.py" for name in ("laws", "recipes", "settings")]
    done = run(*laws, *files, "-k", "norm-scale")
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_installed_by_pip_in_an_environment_of_its_own(world: Any, tmp_path: Path) -> None:
    """A fresh environment that sees this one's libraries; the package is built and installed by pip."""
    project = write_files(tmp_path / "project", page_files())
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    Path(site, "outer.pth").write_text("\n".join(path for path in sys.path if path and Path(path).is_dir()) + "\n")
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}

    def run(*words: object) -> Result:
        return subprocess.run([python, *map(str, words)], capture_output=True, text=True, check=False, cwd=tmp_path,
                              env=clean)  # fmt: skip

    pip = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    done = run(*pip, project)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(project / "ln_extras")  # what runs is what was installed
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", project / "tests")
    assert done.returncode == 0, done.stdout
    done = run("-m", "lnsegfm", "finetune", world.clinic, "--model", world.base, "--method", "norm-scale", "--out",
               "run", "--device", "cpu", "--iterations", "3", "--shots", "2", "--no-mirroring")  # fmt: skip
    assert done.returncode == 0, done.stderr
    scan, reference = (image_files(world.clinic / folder)[0] for folder in ("imagesTr", "labelsTr"))
    done = run("-m", "lnsegfm", "predict", "run", scan, "--out", "masks", "--format", "npz", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "masks").glob("*.npz"))
    done = run("-m", "lnsegfm", "count-voxels", reference)
    assert (done.returncode, done.stdout.strip()) == (0, str(int((read_mask(reference)[0] > 0).sum())))
    (tmp_path / "references").mkdir()
    for file in (reference, world.clinic / "dataset.json"):
        shutil.copy(file, tmp_path / "references")
    done = run("-m", "lnsegfm", "evaluate", "references", "references", "--metric", "volume_error_ml")
    assert done.returncode == 0, done.stderr
    assert "Volume error ml" in done.stdout
