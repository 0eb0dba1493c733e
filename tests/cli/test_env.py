from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lnsegfm.training.ext as ext

EXT = str(Path(ext.__file__).parent)
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def in_bash(script: str, **environment: str) -> list[str]:
    """Run lines in bash, with ``lnsegfm`` on its path."""
    function = f'lnsegfm() {{ "{sys.executable}" -m lnsegfm "$@"; }}\n'
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LNSEGFM_", "nnUNet_"))}
    done = subprocess.run(
        ["bash", "-c", function + script], capture_output=True, text=True, check=True, env=clean | environment
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_eval_sets_the_variables_and_children_see_them():
    found = in_bash(
        'eval "$(lnsegfm env --epochs 3 --iterations 7 --lr 0.5 --set gamma=2 --set mode=momentum)"\n'
        "env | grep -E '^(LNSEGFM_|nnUNet_)' | sort"
    )
    assert found == [
        "LNSEGFM_EPOCHS=3",
        "LNSEGFM_ITERATIONS=7",
        "LNSEGFM_LR=0.5",
        "LNSEGFM_SET=gamma=2 mode=momentum",
        f"nnUNet_extTrainer={EXT}",
    ]


def test_without_options_only_the_folder_is_set():
    assert in_bash('eval "$(lnsegfm env)"; env | grep -E "^(LNSEGFM_|nnUNet_)"') == [f"nnUNet_extTrainer={EXT}"]


def test_a_folder_of_ones_own_is_kept_blanks_and_all_and_ours_comes_once():
    theirs = "/my trainers/it's $HOME:/other"
    found = in_bash('eval "$(lnsegfm env)"; eval "$(lnsegfm env)"; echo "$nnUNet_extTrainer"', nnUNet_extTrainer=theirs)
    assert found == [f"{theirs}:{EXT}"]


def test_nothing_in_a_variable_is_run(tmp_path):
    canary = tmp_path / "canary"
    theirs = f"/a'; touch '{canary}'; '$(touch {canary})`touch {canary}`"
    assert in_bash('eval "$(lnsegfm env)"; echo "$nnUNet_extTrainer"', nnUNet_extTrainer=theirs) == [f"{theirs}:{EXT}"]
    assert not canary.exists()


def test_nnunet_finds_the_trainers_there(lnsegfm_here, monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    line = lnsegfm_here("env").stdout.splitlines()[0]
    assert line == f"export nnUNet_extTrainer={EXT}"
    monkeypatch.setenv("nnUNet_extTrainer", EXT)
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    assert recursive_find_trainer_class_by_name("nnUNetTrainer_DGST").__name__ == "nnUNetTrainer_DGST"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "gamma"], "lnsegfm: --set gamma: not NAME=VALUE. Write --set gamma=2.\n"),
        (["--set", "gamma=1 2"], "lnsegfm: --set gamma=1 2: not NAME=VALUE. Write --set gamma=2.\n"),
        (["--lr", "0"], "lnsegfm: --lr 0.0: a step needs a finite length above 0. Use for example 0.01.\n"),
        (["--lr", "nan"], "lnsegfm: --lr nan: a step needs a finite length above 0. Use for example 0.01.\n"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_prints_nothing_that_a_shell_would_run(lnsegfm_here, words, said):
    done = lnsegfm_here("env", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
