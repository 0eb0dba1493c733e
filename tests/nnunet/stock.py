"""nnU-Net's own commands in processes of their own, which know nothing of this package's environment."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from tests.conftest import Result

QUICK = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}


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
