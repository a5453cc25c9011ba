"""OpenAPI 3.0 and 3.1 documents: their operations as HTTP requests that are made of arguments.

https://spec.openapis.org/oas/v3.1.1. What cannot be expressed here is told of each operation, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from app.agent.core.base import NodeError
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.loading import load_document
from app.agent.tools.schemas import parameters_of, resolve
from app.core.base_urls import origin
from app.core.errors import FieldError, Invalid
from app.core.http_syntax import name_problem, url_problem

METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_PLACES = ("path", "query", "header", "cookie")
_USUAL_STYLE = {"path": "simple", "query": "form", "header": "simple"}
_OURS = ("accept", "content-type", "authorization")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_BODY = "body"


class Unfit(NodeError):
    """An operation that cannot be called here; says why."""

    code = "unusable_operation"


@dataclass(frozen=True, slots=True)
class Source:
    """One operation as it stands in the document; `id` is its `operationId`, or made of method and path."""

    id: str
    method: str
    path: str
    item: Mapping[str, Any]
    operation: Mapping[str, Any]


@dataclass(slots=True)
class Requested:
    """How an operation is called: `request` is the configuration of an `http` node."""

    request: dict[str, Any]
    parameters: dict[str, Any]
    names: dict[tuple[str, str], str] = field(default_factory=dict)


def read_document(given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises `Invalid` for what is no OpenAPI 3 document."""
    document = _loaded(given) if isinstance(given, str) else given
    if not isinstance(document, Mapping):
        raise _invalid("", "an OpenAPI document is an object")
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
        found = f"'openapi' is {version!r}" if version else f"'swagger' is {document.get('swagger')!r}"
        raise _invalid("/openapi", f"{found}: documents of OpenAPI 3.0 and 3.1 are read")
    if not isinstance(document.get("paths"), Mapping):
        raise _invalid("/paths", "the document has no 'paths'")
    return document


def _loaded(text: str) -> Any:
    try:
        return load_document(text)
    except InvalidGraph as error:
        issue = error.report.issues[0]
        raise _invalid("", f"the document is neither JSON nor YAML: {issue.message}") from error


def base_of(document: Mapping[str, Any], base_url: str | None) -> str:
    """Where the operations are, without a slash at the end. Raises `Invalid` where that is not said."""
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else None
    url = base_url or _server(first)
    if not url or url_problem(url):
        found = f" ({url!r})" if url else ""
        raise _invalid("/servers", f"the document does not say where its server is{found}: set 'base_url'")
    return url.rstrip("/")


def _server(server: Any) -> str | None:
    """The URL of a server object, its variables at their defaults."""
    if not isinstance(server, Mapping) or not isinstance(url := server.get("url"), str):
        return None
    variables = server.get("variables")
    known = variables if isinstance(variables, Mapping) else {}

    def default(match: re.Match[str]) -> str:
        variable = known.get(match[1])
        return str(variable.get("default", match[0])) if isinstance(variable, Mapping) else match[0]

    return _PLACEHOLDER.sub(default, url)


def sources(document: Mapping[str, Any]) -> Iterator[Source]:
    """Every operation, in the order of the document."""
    for path, item in document["paths"].items():
        item = _resolved(document, item)
        if not isinstance(path, str) or not isinstance(item, Mapping):
            continue
        for method in METHODS:
            operation = item.get(method)
            if isinstance(operation, Mapping):
                name = operation.get("operationId")
                made = f"{method}_{path.strip('/')}"
                yield Source(name if isinstance(name, str) and name else made, method, path, item, operation)


def described(source: Source) -> str:
    """What the document says that the operation does."""
    texts = [source.operation.get(word) for word in ("summary", "description")]
    found = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    return "\n\n".join(dict.fromkeys(found)) or f"{source.method.upper()} {source.path}"


def requested(document: Mapping[str, Any], source: Source, base: str) -> Requested:
    """Raises `Unfit`, `UnusableSchema`."""
    _check_servers(source, base)
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    found = Requested({"method": source.method.upper(), "query": {}, "headers": {}, "body": {}}, schema)
    for parameter in _parameters(document, source):
        _add_parameter(found, parameter)
    _add_body(found, _resolved(document, source.operation.get("requestBody")))
    found.request["url"] = _url(found, source, base)
    found.parameters = parameters_of(
        {**schema, "additionalProperties": False},
        root={**document, "components": document.get("components", {})},
    )
    found.parameters["additionalProperties"] = False
    for place, name in found.names:
        if place == "path":
            _keep_in_place(found.parameters["properties"][found.names[place, name]])
    return found


def _keep_in_place(schema: dict[str, Any]) -> None:
    """What stands for a part of the path can be none that leads elsewhere: not empty, `.` or `..`."""
    if "string" in schema.get("type", "string"):
        schema["minLength"] = max(1, schema.get("minLength", 1))
        schema["not"] = {"enum": [".", ".."]}


def _check_servers(source: Source, base: str) -> None:
    for part in (source.operation, source.item):
        servers = part.get("servers")
        if isinstance(servers, list) and servers:
            url = _server(servers[0])
            if not url or origin(urljoin(f"{base}/", url)) != origin(base):
                raise Unfit("it has a server of its own: register it as another tool, with 'base_url'")


def _parameters(document: Mapping[str, Any], source: Source) -> list[Mapping[str, Any]]:
    """Those of the operation, and those of its path that it does not replace."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for part in (source.item, source.operation):
        listed = part.get("parameters")
        for given in listed if isinstance(listed, list) else ():
            parameter = _resolved(document, given)
            if not isinstance(parameter, Mapping) or not isinstance(parameter.get("name"), str):
                raise Unfit("one of its parameters has no name, or leads to nothing in the document")
            if parameter.get("in") not in _PLACES:
                raise Unfit(f"the parameter {parameter['name']!r} has no place ('in')")
            found[parameter["name"], parameter["in"]] = parameter
    return list(found.values())


def _add_parameter(found: Requested, parameter: Mapping[str, Any]) -> None:
    name, place = parameter["name"], parameter["in"]
    if place == "header" and name.lower() in _OURS:
        return  # as the specification says
    required = parameter.get("required") is True or place == "path"
    if problem := _parameter_problem(parameter):
        if required:
            raise Unfit(f"the parameter {name!r}: {problem}")
        return
    schema = parameter.get("schema")
    described = dict(schema) if isinstance(schema, Mapping) else {"type": "string"}
    if isinstance(text := parameter.get("description"), str):
        described.setdefault("description", text)
    argument = _declared(found, name, place, described, required=required)
    reference = f"{{{{ arguments.{argument} }}}}"
    found.names[place, name] = argument
    match place:
        case "query":
            found.request["query"][name] = reference
        case "header":
            found.request["headers"][name] = reference


def _parameter_problem(parameter: Mapping[str, Any]) -> str:
    """Why its value could not be written as the server reads it; empty if it can."""
    place, schema = parameter["in"], parameter.get("schema")
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if place == "cookie":
        return "cookies are not sent"
    if "content" in parameter:
        return "parameters with a media type ('content') are not written"
    if parameter.get("style", _USUAL_STYLE[place]) != _USUAL_STYLE[place]:
        return f"the style {parameter['style']!r} is not written"
    if kind == "object" or (kind == "array" and place != "query"):
        return f"{kind}s in the {place} are not written"
    if kind == "array" and parameter.get("explode") is False:
        return "lists are written with 'explode' only"
    return name_problem(parameter["name"]) if place == "header" else ""


def _declared(found: Requested, name: str, place: str, schema: Mapping[str, Any], *, required: bool) -> str:
    """The argument for a parameter, declared under a name that references can have."""
    properties = found.parameters["properties"]
    argument = _NOT_IN_NAMES.sub("_", name).strip("_-") or place
    if not (argument[0].isascii() and argument[0].isalpha()):
        argument = f"{place}_{argument}"
    while argument in properties or argument in ("true", "false", "null"):
        argument = f"{place}_{argument}"
    properties[argument] = dict(schema)
    if required:
        found.parameters["required"].append(argument)
    return argument


def _add_body(found: Requested, body: Any) -> None:
    if not isinstance(body, Mapping):
        return
    content = body.get("content")
    kinds = {
        name.partition(";")[0].strip().lower(): part
        for name, part in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(name, str) and isinstance(part, Mapping)
    }
    for name, part in kinds.items():
        if form := _form_of(name):
            schema = part.get("schema")
            described = schema if isinstance(schema, Mapping) else {}
            required = body.get("required") is True
            argument = _declared(found, _BODY, "request", described, required=required)
            found.request["body"] = {form: f"{{{{ arguments.{argument} }}}}"}
            if name not in ("application/json", "application/x-www-form-urlencoded"):
                found.request["headers"]["Content-Type"] = name
            return
    if body.get("required") is True:
        kinds_told = ", ".join(map(repr, kinds)) or "none"
        raise Unfit(f"its body is of a kind that is not written ({kinds_told}); JSON, forms and text are")


def _form_of(content_type: str) -> str | None:
    if content_type == "application/json" or content_type.endswith("+json"):
        return "json"
    if content_type == "application/x-www-form-urlencoded":
        return "form"
    return "text" if content_type == "text/plain" else None


def _url(found: Requested, source: Source, base: str) -> str:
    """The address as a template."""
    parts: list[str] = []
    for index, piece in enumerate(_PLACEHOLDER.split(source.path)):
        if index % 2 == 0:
            parts.append(piece.replace("{{", "{{{{"))
            continue
        argument = found.names.get(("path", piece))
        if argument is None:
            raise Unfit(f"its path has {{{piece}}}, but there is no such parameter")
        parts.append(f"{{{{ arguments.{argument} }}}}")
    path = "".join(parts)
    return f"{base.replace('{{', '{{{{')}{path if path.startswith('/') else '/' + path}"


def _resolved(document: Mapping[str, Any], part: Any) -> Any:
    """`part`, or what it refers to; one step, as references to references are no use."""
    if isinstance(part, Mapping) and isinstance(reference := part.get("$ref"), str):
        return resolve(document, reference)
    return part


def _invalid(place: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"/body/config/document{place}", "invalid_document", message)])
