"""The notebook runs from its first cell to its last, and shows a run and a prediction."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "adapt_and_predict.ipynb"
SHORT = {"CASES": 4, "SHOTS": 2, "ITERATIONS": 2}


def shortened(notebook: Any) -> Any:
    """The notebook with a few cases and steps."""
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    names, values = ", ".join(SHORT), ", ".join(map(str, SHORT.values()))
    parameters.source += f"\n{names} = {values}"
    return notebook


def shown(notebook: Any, name: str) -> str:
    """The HTML of the cell that ends in a name."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and c.source.splitlines()[-1] == name)
    (output,) = (o for o in cell.outputs if o.output_type == "execute_result")
    return output["data"]["text/html"]


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = shortened(nbformat.read(NOTEBOOK, as_version=4))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert (tmp_path / "notebook" / "run" / "report.html").is_file()
    assert "Run run" in shown(notebook, "run")
    assert re.search("<(svg|img)", shown(notebook, "prediction"))
    assert not [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]


def test_the_notebook_in_the_repository_shows_a_run_and_a_prediction() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    assert all("Not for clinical use" in shown(notebook, name) for name in ("before", "run", "prediction"))
    assert NOTEBOOK.stat().st_size < 100_000  # results alone, no bars of progress


def test_the_notebook_in_the_repository_names_no_place_of_one_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:work|tmp|root|home|Users|mnt)/\S*", text) == []
