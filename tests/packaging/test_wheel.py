"""The wheel holds the whole package and nothing else, and works where the source tree is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lnsegfm"
PARTS = ("src", "tests", "docs", "benchmarks", "examples")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution, built from a copy of the tree: what tools leave in it stays out."""
    tree, dist = tmp_path_factory.mktemp("tree") / "lnsegfm", tmp_path_factory.mktemp("dist")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.ipynb_checkpoints")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tree / part, ignore=unwanted)
    for file in (f for f in ROOT.iterdir() if f.is_file()):
        shutil.copy(file, tree)
    built = []
    for kind in ("wheel", "sdist"):
        build = f"import hatchling.build, sys; print(hatchling.build.build_{kind}(sys.argv[1]))"
        words = [sys.executable, "-c", build, str(dist)]
        done = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=True)
        built.append(dist / done.stdout.split()[-1])
    return built[0], built[1]


def files_of_the_package() -> set[str]:
    files = (f for f in SOURCE.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return {f.relative_to(SOURCE.parent).as_posix() for f in files}


def test_the_wheel_is_the_package(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}

    assert names == files_of_the_package()
    base = "registry/built_in/phantom-neck/fold_0/checkpoint_final.pth"
    for needed in ("py.typed", "report/page.html.j2", "registry/manifest.json", "registry/totalsegmentator.json", base):
        assert f"lnsegfm/{needed}" in names
    assert any(n.startswith("lnsegfm/training/ext/") and n.endswith(".py") for n in names)  # trainers for nnU-Net


def test_the_wheels_metadata(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as wheel:
        (folder,) = {n.partition("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
        metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
        commands = wheel.read(f"{folder}/entry_points.txt").decode()
        licences = [n for n in wheel.namelist() if n.startswith(f"{folder}/licenses/")]

    assert metadata["Name"] == "lnsegfm"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Not for clinical use" in metadata.get_payload()
    assert "lnsegfm = lnsegfm.cli.main:main" in commands
    assert licences == [f"{folder}/licenses/LICENSE"]


def test_the_source_distribution_can_be_tested(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as sdist:
        names = {n.partition("/")[2] for n in sdist.getnames()}

    assert {f"src/{name}" for name in files_of_the_package()} <= names
    assert {
        "pyproject.toml",
        "Makefile",
        "mkdocs.yml",
        "LICENSE",
        "README.md",
        "tests/conftest.py",
        "docs/index.md",
    } <= names
    assert not [n for n in names if "__pycache__" in n or n.endswith(".pyc")]


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a fresh environment with the wheel; dependencies are those of the running environment.

    They come by a .pth file, which adds the folder alone: .pth files in it, an editable installation of the source
    tree among them, do not count. `make test-wheel` installs the dependencies anew instead.
    """
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(distributions[0])], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def outside(*words: object, folder: Path) -> str:
    """Run a command in a folder, with nothing that leads to the source tree; its standard output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
        "LNSEGFM_HOME": str(folder / "home")
    }
    done = subprocess.run([*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_the_wheel_runs_the_demo_outside_the_tree(installed: Path, tmp_path: Path) -> None:
    place = outside(installed / "python", "-c", "import lnsegfm; print(lnsegfm.__file__)", folder=tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parent)

    assert outside(installed / "lnsegfm", "models", "verify", folder=tmp_path) == "phantom-neck: as it was stored\n"

    few = ("--base-iterations", 3, "--iterations", 3)
    outside(installed / "lnsegfm", "demo", "--out", "demo", *few, folder=tmp_path)

    record = json.loads((tmp_path / "demo" / "run" / "run.json").read_text())
    assert record["result"]
    assert (tmp_path / "demo" / "run" / "report.html").is_file()
