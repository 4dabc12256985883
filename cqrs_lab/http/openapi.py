"""The description of a server in OpenAPI 3.1, made from the message classes.

Owns what each path takes and answers. `tests/http` hold the server to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from inspect import getdoc
from typing import Any

from pydantic.json_schema import models_json_schema

from cqrs_lab.app import Lab
from cqrs_lab.http import inside
from cqrs_lab.http.cloud import BATCH, ONE
from cqrs_lab.http.limits import Limits
from cqrs_lab.http.problems import MEDIA
from cqrs_lab.messages import Command, Event, Query

_COMPONENTS = "#/components/schemas/"
Schema = dict[str, Any]

_WHY = {
    "400": "The body cannot be read: it is not JSON, or was cut off",
    "401": "The token is missing or not known",
    "403": "The caller with this token may not do that",
    "404": "There is no such thing",
    "406": "It does not come in that form",
    "408": "The body did not come in time",
    "409": "A rule of the domain says no, the stream has moved on, or the key was used for another command",
    "413": "The body is too large",
    "415": "The body has another form",
    "422": "A field breaks its rule; `errors` names it",
    "503": "Not yet, or not now: come again after Retry-After",
}


def described(lab: Lab, limits: Limits) -> Schema:
    """Return the description of a lab's server.

    Args:
        limits: that the description tells.
    """
    commands, queries = inside.commands(lab), inside.queries(lab)
    messages: list[type[Command] | type[Query] | type[Event]] = [
        *commands.values(),
        *queries.values(),
        *inside.types(lab),
    ]
    _, definitions = models_json_schema([(one, "validation") for one in messages], ref_template=_COMPONENTS + "{model}")
    schemas = {name: _storable(schema) for name, schema in definitions.get("$defs", {}).items()}
    paths: Schema = {f"/commands/{name}": {"post": _command(name, kind)} for name, kind in commands.items()}
    paths |= {f"/queries/{name}": {"get": _query(name, kind, schemas, limits)} for name, kind in queries.items()}
    paths |= _others(limits)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cqrs_lab",
            "version": version("cqrs-lab"),
            "description": "Commands go in, events come out, queries are answered as of a position.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas, **_OWN},
        },
    }


def _command(name: str, kind: type[Command]) -> Schema:
    return {
        "operationId": name,
        "summary": _summary(kind),
        "tags": ["commands"],
        "parameters": [
            _header("Idempotency-Key", "The id of the command, which makes it safe to send it again", _KEY),
            _header("If-Match", "The version of the stream that the sender has seen", _VERSION),
            _parameter("correlation_id", "The story that it belongs to; a fresh one when left out", _KEY),
            _parameter("occurred_at", "When it happened; now when left out", {"type": "string", "format": "date-time"}),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(name)}}},
        "responses": {
            "202": _answer(
                "Its events are on disk. Read models may tell them later: ask at `status`, or with `at_least`",
                _ref("CommandReceipt"),
                {"Location": {"schema": {"type": "string"}, "description": "Where to ask what became of it"}},
            ),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "503"),
        },
    }


def _query(name: str, kind: type[Query], schemas: Mapping[str, Schema], limits: Limits) -> Schema:
    schema = schemas[name]
    fields = [
        {
            "name": field,
            "in": "query",
            "required": field in schema.get("required", ()),
            "schema": one,
            **({"description": one["description"]} if "description" in one else {}),
        }
        for field, one in schema.get("properties", {}).items()
    ]
    seconds = {"type": "number", "minimum": 0}
    return {
        "operationId": name,
        "summary": _summary(kind),
        "tags": ["queries"],
        "parameters": [
            *fields,
            _parameter("at_least", "Wait until the answer tells the log up to this position", _POSITION),
            _parameter("timeout", f"Seconds to wait for that, {limits.wait_seconds:g} at most", seconds),
            _parameter("served_as", "Which serving to read; the freshest when left out", {"enum": list(_WAYS)}),
            _header("If-None-Match", "The tag of an answer that the client has", {"type": "string"}),
        ],
        "responses": {
            "200": _answer("The answer; its tag begins with the position that it tells", {}, _TAG),
            "304": {"description": "Nothing has changed since the answer with that tag", "headers": _TAG},
            **_problems("401", "404", "422", "503"),
        },
    }


def _others(limits: Limits) -> Schema:
    seconds = {"type": "number", "minimum": 0}
    batch = {"type": "array", "items": _ref("CloudEvent")}
    return {
        "/commands/{id}": {
            "get": {
                "operationId": "commandStatus",
                "summary": "What became of a command: processing, or done, in each read model.",
                "tags": ["commands"],
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
                    _parameter(
                        "timeout",
                        f"Seconds to wait, {limits.wait_seconds:g} at most, for read models that move by themselves",
                        {"type": "number", "minimum": 0},
                    ),
                ],
                "responses": {
                    "200": _answer("What became of it", _ref("CommandStatus")),
                    **_problems("401", "404", "422", "503"),
                },
            }
        },
        "/events": {
            "get": {
                "operationId": "events",
                "summary": "The events behind a position, and those to come; or a part of them as CloudEvents.",
                "tags": ["events"],
                "parameters": [
                    _parameter("after", "The position to begin behind", _POSITION),
                    _parameter("category", "Only this category, such as order", {"type": "string"}),
                    _parameter("timeout", "Seconds without an event after which the stream ends", seconds),
                    _parameter("limit", "CloudEvents at most, up to 1,000", _POSITION),
                    _header("Last-Event-ID", "The position of the last event that the client has", _POSITION),
                ],
                "responses": {
                    "200": {
                        "description": "Events: each with its position as id, its type and, as JSON, all of it",
                        "content": {
                            "text/event-stream": {"schema": _ref("StreamedEvent")},
                            BATCH: {"schema": batch},
                        },
                    },
                    **_problems("401", "406", "422", "503"),
                },
            },
            "post": {
                "operationId": "takeIn",
                "summary": "Let events enter as facts, checked by the rules of their classes: all of them, or none.",
                "tags": ["events"],
                "requestBody": {
                    "required": True,
                    "content": {BATCH: {"schema": batch}, ONE: {"schema": _ref("CloudEvent")}},
                },
                "responses": {
                    "200": _answer("They are on disk", _ref("TakenIn")),
                    **_problems("400", "401", "403", "408", "413", "415", "422", "503"),
                },
            },
        },
        "/lag": {
            "get": {
                "operationId": "lag",
                "summary": "How far each serving is behind the log.",
                "tags": ["the server"],
                "responses": {
                    "200": _answer("A row for each serving", {"type": "array", "items": {"type": "object"}}),
                    **_problems("401", "422", "503"),
                },
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "summary": "Whether the store is open. Needs no token.",
                "tags": ["the server"],
                "security": [],
                "responses": {"200": _answer("It is", _ref("Health")), **_problems("503")},
            }
        },
    }


def _storable(schema: Any) -> Any:
    """A schema that says, too, what a column of the log can hold."""
    if isinstance(schema, list):
        return [_storable(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _storable(one) for name, one in schema.items()}
    if made.get("type") == "integer":
        made.setdefault("format", "int64")
    return made


def _summary(kind: type[Any]) -> str:
    return (getdoc(kind) or kind.__name__).splitlines()[0]


def _ref(name: str) -> Schema:
    return {"$ref": _COMPONENTS + name}


def _parameter(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _answer(description: str, schema: Schema, headers: Schema | None = None) -> Schema:
    more = {"headers": headers} if headers else {}
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def _problems(*statuses: str) -> Schema:
    again = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds"}}
    return {
        status: {
            "description": _WHY[status],
            "content": {MEDIA: {"schema": _ref("Problem")}},
            **({"headers": again} if status == "503" else {}),
        }
        for status in statuses
    }


_WAYS = ("view", "materialized", "projection")
_KEY = {"type": "string", "minLength": 1, "maxLength": 500}
_POSITION = {"type": "integer", "minimum": 0, "format": "int64"}
_VERSION = {"type": "string", "pattern": '^"?[0-9]{1,9}"?$'}
_TAG = {"ETag": {"schema": {"type": "string"}, "description": "Begins with the position that the answer tells"}}
_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_MAYBE = {"type": ["string", "null"]}


def _object(required: Schema, **optional: Schema) -> Schema:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_STATE = {"enum": ["processing", "done"]}
_OWN: Schema = {
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": _NUMBER, "detail": _TEXT},
        rule=_TEXT,
        state=_TEXT,
        errors={"type": "array", "items": _object({"field": _MAYBE, "problem": _TEXT})},
        position={"type": ["integer", "null"]},
    ),
    "CommandReceipt": _object(
        {
            "command_id": _TEXT,
            "correlation_id": _TEXT,
            "position": _NUMBER,
            "stream": _TEXT,
            "version": _NUMBER,
            "events": {"type": "array", "items": _object({"type": _TEXT, "data": {"type": "object"}})},
            "status": _TEXT,
        }
    ),
    "CommandStatus": _object(
        {
            "command_id": _TEXT,
            "correlation_id": _MAYBE,
            "position": _NUMBER,
            "state": _STATE,
            "read_models": {
                "type": "array",
                "items": _object(
                    {"model": _TEXT, "served_as": _TEXT, "mode": _TEXT, "position": _NUMBER, "state": _STATE}
                ),
            },
        }
    ),
    "CloudEvent": _object(
        {"specversion": {"const": "1.0"}, "id": _TEXT, "source": _TEXT, "type": _TEXT, "data": {"type": "object"}},
        subject=_TEXT,
        time={"type": "string", "format": "date-time"},
        position=_TEXT,
        version=_NUMBER,
        schemaversion=_NUMBER,
        recordedat={"type": "string", "format": "date-time"},
        correlationid=_TEXT,
        causationid=_TEXT,
        commandid=_TEXT,
    ),
    "StreamedEvent": _object(
        {}, id=_TEXT, event=_TEXT, data={**_TEXT, "contentMediaType": "application/json"}, retry={}
    ),
    "TakenIn": _object({"appended": _NUMBER, "known": _NUMBER, "position": _NUMBER, "kept": {"type": "boolean"}}),
    "Health": _object({"status": {"const": "ok"}, "position": _NUMBER}),
}
