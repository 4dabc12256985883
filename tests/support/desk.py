"""A desk: JupyterLab started for real, and Debian's Chromium through Playwright."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import nbformat

from support.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route

CHROMIUM = "/usr/bin/chromium"
SECONDS = float(os.environ.get("DESK_SECONDS", "240"))  # a busy machine may need them


def missing() -> str | None:
    """Return what is missing for a browser, None when nothing is."""
    try:
        import jupyterlab  # noqa: F401
        import playwright  # noqa: F401
    except ModuleNotFoundError as error:
        return f'{error.name} is not installed: pip install "cqrs-lab[test]"'
    return None if Path(CHROMIUM).exists() else f"there is no {CHROMIUM}: apt-get install chromium"


class Desk:
    """A JupyterLab over a folder, and a browser that reaches nothing else."""

    def __init__(self, folder: Path, url: str, token: str, context: BrowserContext) -> None:
        self.folder, self.url, self.token, self.context = folder, url, token, context
        self.reached: list[str] = []
        context.route("**/*", self._routed)

    def write(self, name: str, *cells: str) -> str:
        """Write a notebook of these cells that was not run yet."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)
        return name

    def read(self, name: str) -> nbformat.NotebookNode:
        """Return a notebook as it is on the disk."""
        return nbformat.read(self.folder / name, as_version=4)

    def open(self, name: str) -> Page:
        """Open a notebook in a page of its own, and wait until its kernel is ready."""
        page = self.context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.goto(f"{self.url}lab/tree/{name}?token={self.token}&reset", timeout=SECONDS * 1000)
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")
        return page

    def run(self, page: Page) -> None:
        """Run all cells of the notebook that is open."""
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        self.command(page, "notebook:run-all-cells")

    def command(self, page: Page, name: str) -> None:
        """Have JupyterLab carry out one of its commands, to its end."""
        late = f"new Promise((_, no) => setTimeout(() => no(new Error('{name} takes too long')), {SECONDS * 1000}))"
        page.evaluate(f"() => Promise.race([window.jupyterapp.commands.execute('{name}').then(() => null), {late}])")

    def close(self, page: Page) -> None:
        """Close a page and end every kernel, as somebody who goes home."""
        if not page.is_closed():
            page.close()
        for session in self.ask("GET", "api/sessions"):
            self.ask("DELETE", f"api/sessions/{session['id']}")

    def restart(self, page: Page) -> None:
        """Start the kernel again, as somebody does from the menu."""
        page.get_by_role("menuitem", name="Kernel").click()
        page.get_by_text("Restart Kernel…", exact=True).click()
        page.get_by_role("button", name="Confirm Kernel Restart").click()

    def ask(self, method: str, path: str) -> list[dict]:
        """Ask the server."""
        request = Request(f"{self.url}{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with urlopen(request, timeout=SECONDS) as answer:
            return json.loads(answer.read() or "null")

    def _routed(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname in ("localhost", "127.0.0.1", None):
            route.continue_()
        else:
            self.reached.append(route.request.url)
            route.abort()


@contextmanager
def desk_over(home: Path, folder: Path) -> Iterator[Desk]:
    """Start a JupyterLab over a folder, with an empty home, and a browser with an empty profile."""
    from playwright.sync_api import sync_playwright

    places = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    here = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))}
    options = ["--no-browser", "--expose-app-in-browser", "--port-retries=100", f"--ServerApp.root_dir={folder}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env={**os.environ, **places, **here, "IPYTHONDIR": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        file = wait_until(lambda: next(iter((home / "runtime").glob("jpserver-*.json")), None), timeout=SECONDS)
        told = wait_until(lambda: _read(file), timeout=SECONDS)
        with sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
            # As tall as the notebook: JupyterLab takes cells that cannot be seen out of the page.
            context = browser.new_context(viewport={"width": 1280, "height": 3600}, locale="en-GB")
            yield Desk(folder, told["url"], told["token"], context)
            browser.close()
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:  # it waits for kernels that a busy machine does not let end
            server.kill()
            server.wait()


def _read(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text())
    except ValueError:  # half written
        return None
