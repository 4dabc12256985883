"""Tokens: who may come in, and who it is that comes.

Owns them. A token is looked up by its SHA-256, so that the time of a look-up tells nothing about it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cqrs_lab.errors import DeclarationError
from cqrs_lab.http.problems import Refused

OWNER = "owner"


class Tokens:
    """The tokens that a server takes.

    Args:
        actors: token -> who shows it, for the domain's policy.

    Raises:
        DeclarationError: there is none, or one that no header can carry.
    """

    def __init__(self, actors: Mapping[str, str]) -> None:
        if not actors:
            raise DeclarationError("there is no token, so nobody could come in; give one, as {'…': 'owner'}")
        for token, actor in actors.items():
            if not token.isascii() or not token.isprintable() or " " in token or not token or not actor:
                raise DeclarationError(f"the token of {actor or 'nobody'} is empty, or has letters beyond ASCII")
        self._actors = {_digest(token): actor for token, actor in actors.items()}

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Self:
        """Return the tokens in a file: on each line a token, a space, and who shows it. Lines with # say nothing.

        Raises:
            DeclarationError: a line is not that.
        """
        actors: dict[str, str] = {}
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            token, _, actor = line.strip().partition(" ")
            if not actor.strip() or token in actors:  # the token itself is not told
                wrong = "names a token again" if token in actors else "names no actor"
                raise DeclarationError(f"line {number} of {path} {wrong}; write: TOKEN ACTOR")
            actors[token] = actor.strip()
        return cls(actors)

    @classmethod
    def made(cls) -> tuple[Self, str]:
        """Return a token made now, for the owner; nobody can find it out by trying."""
        token = secrets.token_urlsafe(32)
        return cls({token: OWNER}), token

    def actor(self, authorization: str | None) -> str:
        """Return who shows a token.

        Args:
            authorization: the header of that name.

        Raises:
            Refused: there is none, or it is not known.
        """
        scheme, _, token = (authorization or "").partition(" ")
        actor = self._actors.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
        if actor is None:
            said = "is not known here" if authorization else "is missing"
            raise Refused(
                401,
                "no-token",
                f"the bearer token {said}; send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": 'Bearer realm="cqrs-lab"'},
            )
        return actor


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
