"""Safe by default: tokens, bodies, methods, and the page that asks nobody else."""

from __future__ import annotations

import html.parser
from pathlib import Path

import pytest
from support.serving import inside, order

from cqrs_lab import Lab
from cqrs_lab.errors import DeclarationError
from cqrs_lab.http import Limits, app
from cqrs_lab.http.security import Tokens
from cqrs_lab.http.server import is_loopback

PRIVATE = [
    ("POST", "/commands/PlaceOrder"),
    ("GET", "/commands/some-id"),
    ("GET", "/queries/OrderDetails?order_id=o-1"),
    ("GET", "/events?timeout=0"),
    ("POST", "/events"),
    ("GET", "/lag"),
]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize(
    "shown", [None, "Bearer wrong", "Bearer", "Basic secret-of-the-owner", "secret-of-the-owner", "Bearer \xe9"]
)
def test_nobody_comes_in_without_a_token(lab: Lab, method: str, path: str, shown: str | None) -> None:
    """401 says how to show one; nothing is done."""
    with inside(lab, token="") as web:
        headers = {"Authorization": shown.encode("latin-1")} if shown else {}
        answer = web.request(method, path, headers=headers, json=order("o-1") if method == "POST" else None)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="cqrs-lab"')
        assert lab.head == 0


def test_what_needs_no_token_tells_nothing(lab: Lab) -> None:
    """Health, description and page answer anybody; of the log they tell its length alone."""
    with inside(lab, token="") as web:
        lab_path = str(Path(__file__).parent)
        for path in ("/health", "/openapi.json", "/docs"):
            answer = web.get(path)
            assert answer.status_code == 200
            assert lab_path not in answer.text


def test_a_token_is_made_when_none_is_given(lab: Lab) -> None:
    """Each server makes its own, long enough not to be found out."""
    first, second = app(lab).state.token, app(lab).state.token
    assert first != second
    assert len(first) >= 32
    assert app(lab, tokens={"t": "ann"}).state.token is None


@pytest.mark.parametrize("text", ["", "# nobody\n", "token\n", "a owner\na ann\n", "é owner\n"])
def test_a_file_of_tokens_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """No token at all, one without an actor, and one that comes twice; the error does not tell the token."""
    path = tmp_path / "tokens"
    path.write_text(text, "utf-8")
    with pytest.raises(DeclarationError) as refused:
        Tokens.of_file(path)
    assert "token\n" not in str(refused.value)


def test_a_file_of_tokens_names_an_actor_for_each(tmp_path: Path) -> None:
    """Lines with # and empty ones say nothing; an actor may have a space."""
    path = tmp_path / "tokens"
    path.write_text("# tills\n\ntoken-1 till 1\n  token-2   ann\n", "utf-8")
    tokens = Tokens.of_file(path)
    assert [tokens.actor(f"Bearer {token}") for token in ("token-1", "token-2")] == ["till 1", "ann"]


def test_a_body_is_no_larger_than_is_allowed(lab: Lab) -> None:
    """413 comes also when the client does not say how much it sends, and also when it says less."""
    with inside(lab, limits=Limits(body=1_000)) as web:
        head = {"Content-Type": "application/json"}
        large = b'{"order_id": "' + b"o" * 2_000 + b'"}'
        assert web.post("/commands/PlaceOrder", content=large, headers=head).status_code == 413
        assert web.post("/commands/PlaceOrder", content=iter([large] * 3), headers=head).status_code == 413
        assert web.post("/commands/PlaceOrder", json=order("o-1")).status_code == 202


def test_limits_are_above_nothing() -> None:
    """A limit of none would keep everybody out, and is refused by its name."""
    with pytest.raises(DeclarationError, match="streams=0"):
        Limits(streams=0)


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/events"), ("PUT", "/commands/PlaceOrder"), ("TRACE", "/lag")]
)
def test_other_methods_are_refused(lab: Lab, method: str, path: str) -> None:
    """405 tells which there are."""
    with inside(lab) as web:
        answer = web.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
        assert answer.headers["allow"]


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {value or "" for name, value in attributes if name in ("href", "src")}
        self.ids |= {value or "" for name, value in attributes if name == "id"}


def test_the_page_asks_nobody_else(lab: Lab) -> None:
    """It has no script, its links lead to itself and to the description, and it names every path."""
    with inside(lab) as web:
        answer = web.get("/docs")
        page = _Links()
        page.feed(answer.text)
        assert not page.tags & {"script", "link", "img", "iframe"}
        assert page.links <= {"/openapi.json", *(f"#{id}" for id in page.ids)}
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert all(path in answer.text for path in web.get("/openapi.json").json()["paths"])


def test_loopback_is_known() -> None:
    """Only addresses of this machine count as such."""
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.1.2", "example.org"]))
