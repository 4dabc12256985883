"""The page for people: the description of a server as plain HTML, without a script and without the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{margin-top:2.5rem;text-transform:capitalize}summary{cursor:pointer;padding:.4rem 0}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f5f5f5;padding:.8rem;overflow:auto}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;
border-bottom:1px solid #ddd}.method{display:inline-block;width:4rem;font-weight:bold}"""


def page(description: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI description."""
    info = description["info"]
    by_tag: dict[str, list[str]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append("".join(_operation(method, path, operation)))
    parts = "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in by_tag.items())
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_pre(schema)}</details>'
        for name, schema in sorted(description["components"]["schemas"].items())
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} Every request but those marked so shows a token: "
        '<code>Authorization: Bearer TOKEN</code>. For programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{parts}<h2>Schemas</h2>{schemas}</html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f'<details><summary><span class="method">{method.upper()}</span><code>{escape(path)}</code> '
        f"{escape(operation['summary'])}</summary>"
    )
    rows = [
        (one["name"], one["in"] + (", required" if one.get("required") else ""), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    if rows:
        yield _table(("parameter", "in", ""), rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{escape(media)}</code>: {_schema(content['schema'])}</p>"
    answers = [(status, answer["description"], _forms(answer)) for status, answer in operation["responses"].items()]
    yield _table(("status", "", "body"), answers, raw=2) + "</details>"


def _forms(answer: Mapping[str, Any]) -> str:
    return "<br>".join(
        f"<code>{escape(media)}</code> {_schema(content['schema'])}"
        for media, content in answer.get("content", {}).items()
    )


def _schema(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if schema.get("type") == "array":
        return f"a list of {_schema(schema['items'])}"
    return escape(str(schema.get("type", "any JSON")))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], raw: int = -1) -> str:
    """A table; the column `raw` is HTML already."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{c if n == raw else escape(c)}</td>" for n, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{escape(one)}</th>' for one in head)}</tr>{cells}</table>"


def _pre(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1))}</pre>"
