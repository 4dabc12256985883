"""What goes into SQL: any name and any text comes out as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.histories import CHARACTERS

from cqrs_lab.errors import QueryFailed
from cqrs_lab.sql.duck import ask
from cqrs_lab.sql.names import literal, quote

TEXTS = st.text(CHARACTERS) | st.sampled_from(
    ["'", "''", '"', "'; DROP TABLE x; --", '"; DROP TABLE x; --', "\\'", "$$"]
)


@given(TEXTS)
def test_a_text_comes_out_as_it_went_in(text: str) -> None:
    """A literal is the text, whatever it holds."""
    assert ask(f"SELECT {literal(text)}, length({literal(text)}) >= 0") == [(text, True)]


@given(TEXTS.filter(bool))
def test_a_name_names_what_it_says(name: str) -> None:
    """A quoted name is one name, whatever it holds."""
    assert ask(f"SELECT {quote(name)} FROM (SELECT 7 AS {quote(name)})") == [(7,)]


def test_what_cannot_be_said_is_refused() -> None:
    """A NUL is in no literal and in no name, and a name is not empty."""
    for call, given_ in ((literal, "a\0"), (quote, "a\0"), (quote, "")):
        with pytest.raises(QueryFailed):
            call(given_)
