"""Stock nnU-Net: its commands in processes that know nothing of this package, and its predictor in this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.environment import nnunet_environment
from tests.conftest import Result

QUICK = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
NAME = "Dataset001_Scenes"


def stock(name: str, *words: object, **environment: str) -> Result:
    """Run one of nnU-Net's console scripts."""
    script = Path(sysconfig.get_path("scripts")) / name
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet", "LNSEGFM"))}
    command = [str(script), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env={**clean, **QUICK, **environment}
    )


def stock_predict(model: Path, images: Path, out: Path, *flags: object) -> Result:
    """``nnUNetv2_predict_from_modelfolder`` on the CPU, one process a stage."""
    words = ("-i", images, "-o", out, "-m", model, "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", *flags)
    return stock("nnUNetv2_predict_from_modelfolder", *words)


def stock_predict_here(
    model: Path, images: Path, out: Path, *, mirroring: bool = True, folds: tuple[int, ...] = (0,)
) -> None:
    """The same in this process, by nnU-Net's own predictor on files: no process to start, nothing to load anew.

    Of a folder nnU-Net would list the files in forks, which may wait forever for a lock of a thread of this process.
    """
    out.mkdir(parents=True, exist_ok=True)
    cases: dict[str, list[str]] = {}
    for image in sorted(images.glob("*.nii.gz")):
        cases.setdefault(image.name[: -len("_0000.nii.gz")], []).append(str(image))
    with nnunet_environment():
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=mirroring, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(model), folds, "checkpoint_final.pth")
        predictor.predict_from_files_sequential(list(cases.values()), [str(out / name) for name in cases])


def nnunet_world(base: Path, data: Path, root: Path) -> dict[str, str]:
    """A data set as nnU-Net's commands want it: planned like the base, preprocessed by nnU-Net. Gives its variables."""
    raw_folder, preprocessed = root / "raw" / NAME, root / "preprocessed" / NAME
    shutil.copytree(data, raw_folder)
    preprocessed.mkdir(parents=True)
    plans = dict(read_model(base).plans) | {"dataset_name": NAME}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    shutil.copy(data / "dataset.json", preprocessed)
    shutil.copytree(data / "labelsTr", preprocessed / "gt_segmentations")
    cases = open_dataset(data).cases
    with nnunet_environment():
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(plans)
        configuration = manager.get_configuration("3d_fullres")
        folder = preprocessed / configuration.data_identifier
        folder.mkdir()
        for case in cases:
            configuration.preprocessor_class(verbose=False).run_case_save(
                str(folder / case.name),
                [str(case.images[0])],
                str(case.label),
                manager,
                configuration,
                json.loads((data / "dataset.json").read_text()),
            )
    names = [case.name for case in cases]
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": names[1:], "val": names[:1]}]))
    return {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
