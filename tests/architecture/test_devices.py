"""Whatever takes a device is run on a simulated GPU by some test, or is listed here with the reason why not."""

from __future__ import annotations

import ast
from pathlib import Path

import lnsegfm

PACKAGE = Path(lnsegfm.__file__).parent
TESTS = PACKAGE.parents[1] / "tests"
INFERENCE = "inference/test_inference_on_a_gpu.py"
TRANSFORMS = "transforms/test_transforms_on_a_gpu.py"
TRAINING = "training/test_training_on_a_gpu.py"
RUN = "workflows/test_finetune_on_a_gpu.py"
RUN_BY = {
    "api.py": RUN,
    "inference/sliding_window.py": INFERENCE,
    "inference/tile_forward.py": INFERENCE,
    "networks/cpu_allocator.py": INFERENCE,
    "nnunet/fast_resampling.py": TRANSFORMS,
    "prediction/pipeline.py": RUN,
    "prediction/predict_options.py": RUN,
    "prediction/prediction_time.py": RUN,
    "prediction/predictor.py": RUN,
    "prediction/scan_predictor.py": RUN,
    "prediction/session.py": RUN,
    "training/in_memory_trainer.py": TRAINING,
    "training/loop.py": RUN,
    "training/sanity_run.py": RUN,
    "training/training_job.py": RUN,
    "transforms/augmentation/prepared_case.py": TRANSFORMS,
    "transforms/augmentation/spatial_transforms.py": TRANSFORMS,
    "transforms/resampling/axis_weights.py": TRANSFORMS,
    "transforms/resampling/resample_blockwise.py": TRANSFORMS,
    "transforms/resampling/resample_images.py": TRANSFORMS,
    "workflows/finetune.py": RUN,
    "workflows/lr_search.py": RUN,
    "workflows/preset_benchmark.py": RUN,
    "workflows/run_time.py": RUN,
    "workflows/training_run.py": RUN,
}
NOT_RUN = {
    "report/asked_options.py": "keeps the name of a device for a command line",
    "study/run_study.py": "hands a name on to its jobs",
    "study/study_job.py": "hands a name on to fine-tuning and prediction",
    "training/distributed.py": "asks the driver how many GPUs there are; its processes train as one does",
    "training/launched.py": "sets the GPU of a process; its processes train as one does",
    "training/named_trainers.py": "nnU-Net's own trainer moves its network; the optimizer is the same",
    "training/nnunet_trainer.py": "as above",
    "training/precision.py": "asks the driver what it computes in",
    "workflows/pretrain.py": "the same run as a fine-tuning's, from fresh weights",
}


def with_a_device(source: Path) -> bool:
    """Whether a module has a function that takes a device, or a record that holds one."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.args + node.args.kwonlyargs
            if any(argument.arg == "device" for argument in arguments):
                return True
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "device":
            return True
    return False


def test_every_module_with_a_device_is_run_on_a_simulated_gpu_or_says_why_not() -> None:
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if with_a_device(path)}
    commands = {module for module in modules if module.startswith("cli/")}  # they hand a name on

    assert modules - commands == RUN_BY.keys() | NOT_RUN.keys()
    assert not RUN_BY.keys() & NOT_RUN.keys()


def test_the_tests_named_enter_the_simulation() -> None:
    for test in set(RUN_BY.values()):
        assert "with simulated_gpu()" in (TESTS / test).read_text(encoding="utf-8"), test
