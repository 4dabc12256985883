"""A page that lives in a notebook, with a picture of it for wherever it cannot live.

Owns the shell around the widgets of the workbench: what a page asks is answered by a function, what goes wrong is
shown in the page, and the picture stands below as an output of its own. The page hides the picture while a kernel
answers; a saved notebook, a code host, nbconvert and a restarted kernel show it. Starts no thread and needs no network.
Needs the extra `lab` once a page is made, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from cqrs_lab.errors import CqrsLabError, StoreClosed

Message = dict[str, Any]

# Where a notebook was trusted, the line that tells that a widget is gone is not shown: the picture tells it better.
_HIDE = (
    "<style>.jp-OutputArea-child:has(.jupyter-widgets):not(:has(.jupyter-widgets *))"
    ":has(+ .jp-OutputArea-child .cqrs-lab-picture) { display: none }</style>"
)


class Live:
    """A page in a notebook; what the widgets of the workbench have in common.

    Attributes:
        widget: the page itself, to be put into other widgets.
    """

    script: str
    """The name of its script, beside this file."""
    named: str
    """What people call it."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        """Make the page.

        Args:
            start: what its script is told at first.

        Raises:
            CqrsLabError: anywidget is not installed.
        """
        self.widget = _kind(self.script, self.named)(start=dict(start))
        self.widget.on_msg(self._asked)

    def answer(self, question: Message) -> Message:
        """Return the answer to a question of the page."""
        raise NotImplementedError

    def picture(self) -> str:
        """Return what is there to see, as HTML without a script."""
        raise NotImplementedError

    def tell(self, message: Message) -> None:
        """Tell the page something that it did not ask for."""
        self.widget.send(message)

    def reply(self, question: Message) -> Message:
        """Return the answer to a question; where there is none, what went wrong, to be shown in the page."""
        try:
            return {} if question.get("ask") == "hello" else self.answer(question)
        except CqrsLabError as error:
            return {"alert": str(error), "closed": isinstance(error, StoreClosed)}
        except Exception as error:  # raised here, it would go to a log that nobody has open
            return {"alert": f"{type(error).__name__}: {error}"}

    def _asked(self, _: Any, question: Message, __: Any) -> None:
        self.widget.send({**self.reply(question), "id": question.get("id")})

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle = self.widget._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        display({**data, "text/plain": repr(self)}, raw=True)  # type: ignore[no-untyped-call]
        display({"text/html": self.still()}, raw=True)  # type: ignore[no-untyped-call]

    def still(self) -> str:
        """Return the picture as it stands below the page, with what to do to wake the page."""
        wake = f"A picture of the {escape(self.named)}. To use it, run this cell in JupyterLab: Shift + Enter."
        return f'<div class="cqrs-lab-picture">{_HIDE}\n<p><em>{wake}</em></p>\n{self.picture()}\n</div>'


@cache
def _kind(script: str, named: str) -> Any:
    try:
        import anywidget
        import traitlets
    except ModuleNotFoundError as error:
        raise CqrsLabError(f'the {named} needs anywidget; install it with: pip install "cqrs-lab[lab]"') from error

    here = files("cqrs_lab.workbench.show")
    # One text: a script in a notebook has no address that it could import another one from.
    text = "\n".join((here / name).read_text(encoding="utf-8") for name in ("live.js", script))

    class Page(anywidget.AnyWidget):
        _esm = text
        _css = (here / "live.css").read_text(encoding="utf-8")
        start = traitlets.Dict().tag(sync=True)

    return Page


Action = Callable[[], object]
