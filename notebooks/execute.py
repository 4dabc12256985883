"""Run the notebooks beside this file in place, as they are committed: `python notebooks/execute.py [NAME…]`.

Keeps what a reader without a kernel can see: the page of a widget, not the reference to one that is gone; and nothing
of a progress bar that was closed.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def main(names: list[str]) -> None:
    """Run all notebooks, or those named."""
    folder = Path(__file__).parent
    for path in [folder / name for name in names] or sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook,
            timeout=300,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = [
                    output for output in map(_seen, cell.outputs) if output is not None
                ]
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
        sys.stdout.write(f"{path.name}: run\n")


def _seen(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Return what is left of an output when its widgets are gone, None when nothing is."""
    data = output.get("data", {})
    if WIDGET in data:
        del data[WIDGET]
        if "text/html" not in data:
            return None
    return output


if __name__ == "__main__":
    main(sys.argv[1:])
