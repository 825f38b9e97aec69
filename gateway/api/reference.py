"""`/docs`: the OpenAPI document as one page to read, which needs nothing but itself: no script, no font, no picture. Pure.

Owns the page. Must not know a resource or a route: it shows what is in the document. Its policy (CSP) lets it load nothing at all; its one
style is in it, and named there by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final, cast
from urllib.parse import quote

from gateway.api.sample import sample

Part = Mapping[str, Any]

_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:0 auto;padding:0 1rem 4rem;max-width:72rem}"
    "main,nav{min-width:0}nav ul{list-style:none;padding:0;margin:0}nav a{text-decoration:none}nav h2{font-size:1rem;margin:1rem 0 .2rem}"
    "code,pre{font:.875rem/1.45 ui-monospace,monospace}pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:.6rem .8rem;border:1px solid;border-radius:4px}"
    "table{border-collapse:collapse;width:100%;margin:.4rem 0 1rem}td,th{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;"
    "border-bottom:1px solid color-mix(in srgb,currentcolor 20%,transparent);overflow-wrap:break-word}td code{overflow-wrap:anywhere}th{font-weight:600}"
    "article{border-top:2px solid;margin-top:2.5rem}h3{margin:.6rem 0 .2rem;overflow-wrap:anywhere}h4{margin:.8rem 0 0}"
    "h3 code{font-size:1.05rem}:target{outline:2px solid;outline-offset:.4rem}"
    "@media(max-width:60rem){td,h3{overflow-wrap:anywhere}}"
    "@media(min-width:60rem){body{display:grid;grid-template-columns:15rem 1fr;gap:2.5rem}nav{position:sticky;top:0;height:100vh;overflow-y:auto}}"
)
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}  # fmt: skip
_QUOTED: Final = re.compile(r"`([^`]+)`")
_METHODS: Final = ("get", "post", "put", "patch", "delete")


def page(document: Part) -> bytes:
    """Make the page of a document."""
    schemas = cast("Mapping[str, Part]", document["components"]["schemas"])
    groups: dict[str, list[tuple[str, str, Part]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                groups[methods[method]["tags"][0]].append((path, method, methods[method]))
    info = document["info"]
    title = escape(info["title"])
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{_contents(groups)}<main>",
        f"<h1>{title}</h1><p>Version {escape(info['version'])}. {_prose(info['description'])}</p>",
        '<p>The same, for programs: <a href="/openapi.json">openapi.json</a>. The examples want two variables of the shell: ',
        "<code>GATEWAY</code>, this address, such as <code>http://127.0.0.1:8080</code>, and <code>KEY</code>, an API key.</p>",
    ]
    for group, operations in groups.items():
        parts.append(f'<section><h2 id="{escape(group)}">{escape(group)}</h2>')
        for path, method, operation in operations:
            parts += _article(path, method, operation, schemas)
        parts.append("</section>")
    parts.append('<section><h2 id="schemas">Schemas</h2>')
    for name, schema in schemas.items():
        parts += _schema_article(name, schema)
    parts.append("</section></main></body></html>")
    return "".join(parts).encode()


def example(path: str, method: str, operation: Part, schemas: Mapping[str, Part]) -> str:
    """Return a line of curl that calls a route."""
    words = ["curl"] if method == "get" else ["curl", "-X", method.upper()]
    query: list[str] = []
    for parameter in operation["parameters"]:
        value = sample(parameter["schema"], schemas, parameter["name"])
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(str(value), safe="@"))
        elif parameter.get("required"):
            query.append(f"{parameter['name']}={quote(str(value))}")
    line = " ".join([*words, f'"$GATEWAY{path}{"?" + "&".join(query) if query else ""}"'])
    if "security" in operation:
        line += ' -H "Authorization: Bearer $KEY"'
    for kind, content in list(operation.get("requestBody", {}).get("content", {}).items())[:1]:
        line += f" -H {shlex.quote('Content-Type: ' + kind)}"
        if kind == "application/json":
            line += (
                f" \\\n  -d {shlex.quote(json.dumps(sample(content['schema'], schemas), ensure_ascii=False))}"
            )
        else:
            line += " --data-binary @contacts.csv"
    return line


def _contents(groups: Mapping[str, Sequence[tuple[str, str, Part]]]) -> str:
    parts = ["<nav>"]
    for group, operations in groups.items():
        parts.append(f'<h2><a href="#{escape(group)}">{escape(group)}</a></h2><ul>')
        parts += [
            f'<li><a href="#{escape(operation["operationId"])}">{escape(operation["operationId"].replace("_", " "))}</a></li>'
            for _, _, operation in operations
        ]
        parts.append("</ul>")
    parts.append('<h2><a href="#schemas">schemas</a></h2></nav>')
    return "".join(parts)


def _article(path: str, method: str, operation: Part, schemas: Mapping[str, Part]) -> Iterator[str]:
    yield f'<article id="{escape(operation["operationId"])}"><h3><code>{method.upper()} {escape(path)}</code></h3>'
    yield f"<p>{_prose(operation['summary'])} {_prose(operation.get('description', 'No key is needed.'))}</p>"
    if operation["parameters"]:
        yield "<h4>Parameters</h4><table><tr><th>name</th><th>in</th><th>form</th><th>meaning</th></tr>"
        for one in operation["parameters"]:
            yield _row(
                f"<code>{escape(one['name'])}</code>{'' if one.get('required') else ' (optional)'}",
                escape(one["in"]),
                _form(one["schema"]),
                _prose(one.get("description", "")),
            )
        yield "</table>"
    if "requestBody" in operation:
        yield "<h4>Body</h4><table><tr><th>content type</th><th>form</th></tr>"
        for kind, content in operation["requestBody"]["content"].items():
            yield _row(f"<code>{escape(kind)}</code>", _form(content["schema"]))
        yield "</table>"
    yield "<h4>Answers</h4><table><tr><th>status</th><th>what</th><th>form</th></tr>"
    for status, response in operation["responses"].items():
        forms = [
            f"<code>{escape(kind)}</code> {_form(content['schema'])}"
            for kind, content in response.get("content", {}).items()
        ]
        yield _row(f"<code>{escape(status)}</code>", _prose(response["description"]), "<br>".join(forms))
    yield f"</table><h4>Example</h4><pre>{escape(example(path, method, operation, schemas))}</pre></article>"


def _schema_article(name: str, schema: Part) -> Iterator[str]:
    yield f'<article id="schema-{escape(name)}"><h3>{escape(schema.get("title", name))}</h3><p>{_prose(schema.get("description", ""))}</p>'
    if schema.get("properties"):
        required = set(schema.get("required", ()))
        yield "<table><tr><th>field</th><th>form</th></tr>"
        for field, form in schema["properties"].items():
            optional = "" if field in required else " (optional)"
            yield _row(f"<code>{escape(field)}</code>{optional}", _form(form))
        yield "</table>"
    elif "properties" not in schema:
        yield f"<p>{_form(schema)}</p>"
    yield "</article>"


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _form(schema: Part) -> str:
    """Say a schema in a line, with links to what it refers to."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    if "enum" in schema:
        return "one of " + ", ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_form(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        said = [f"array of {_form(schema['items'])}"]
    elif "properties" in schema:
        said = [f"<code>{escape(name)}</code>: {_form(one)}" for name, one in schema["properties"].items()]
    else:
        said = [escape(str(schema.get("type", "anything")))]
    bounds = {
        "format": "{}", "pattern": "like {}", "minLength": "at least {} characters", "maxLength": "at most {} characters", "minimum": "from {}",
        "exclusiveMinimum": "above {}", "maximum": "to {}", "minItems": "at least {}", "maxItems": "at most {}",
        "contentEncoding": "in {}", "default": "by default {}",
    }  # fmt: skip
    for word, text in bounds.items():
        if word in schema and schema[word] not in ("", [], {}):
            said.append(text.format(f"<code>{escape(_shown(schema[word]))}</code>"))
    return ", ".join(said)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _prose(text: str) -> str:
    return _QUOTED.sub(r"<code>\1</code>", escape(text))
