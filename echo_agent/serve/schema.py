"""What ``/openapi.json`` says of each path: what goes in, what comes out, and how it may fail."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from echo_agent.serve.protocol import ChatRequest


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """The body of every reply that is no answer."""

    error: Problem


class Model(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    """That the server is there."""

    status: Literal["ok"]


FAILURES = {
    400: "The request cannot be answered; the message says why.",
    401: "The key is missing or wrong.",
    403: "The server was called by a name that is not its own.",
    404: "There is no such model.",
    413: "The request is too large.",
    415: "The request is not JSON.",
    429: "There are too many requests at once.",
    503: "The model cannot be asked any more.",
    504: "It took too long.",
}


def described(path: Literal["chat", "models", "health", "metrics"]) -> dict[str, Any]:
    """Arguments of a route that describe it."""
    if path == "health":
        return {"response_model": Health, "tags": ["server"]}
    if path == "metrics":
        text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
        return {"responses": {200: text, **_failures(401, 403)}, "response_model": None, "tags": ["server"]}
    if path == "models":
        return {"response_model": Models, "responses": _failures(401, 403), "tags": ["answers"]}
    schema = ChatRequest.model_json_schema()
    body = {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}
    answer = {
        "description": "The answer, or a stream of events where one is asked for.",
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["id", "object", "choices", "usage"]}
            },
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    return {
        "response_model": None,
        "responses": {200: answer, **_failures(*FAILURES)},
        "openapi_extra": {"requestBody": body},
        "tags": ["answers"],
    }


def _failures(*statuses: int) -> dict[int, dict[str, Any]]:
    return {status: {"model": Failure, "description": FAILURES[status]} for status in statuses}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without definitions: what it refers to stands in its place."""
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rpartition("/")[2]])
        return {key: resolve(value) for key, value in node.items() if key != "discriminator"}

    return resolve(schema)
