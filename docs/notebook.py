"""Run the notebook and keep what its cells showed: ``make notebook``. Minutes; a run that was stopped continues.

Bars of progress are left out, and the text of results that have HTML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "adapt_and_predict.ipynb"


def run(notebook: Any, folder: Path) -> None:
    """Execute a notebook in a folder; its cells hold what they showed."""
    NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}}).execute()


def keep_results(notebook: Any) -> None:
    """Reduce what cells showed to their results, and forget when and by which Python they ran."""
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.output_type == "execute_result"]
        for output in cell.outputs:
            if "text/html" in output.data:
                output.data.pop("text/plain", None)


def main() -> None:
    """Execute the notebook where it lies and write it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    run(notebook, NOTEBOOK.parent)
    keep_results(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
