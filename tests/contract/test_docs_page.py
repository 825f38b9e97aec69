"""`/docs`: whole, readable with no script, and loading nothing but itself, in a real browser too."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.api.openapi import document
from gateway.api.reference import example, page
from gateway.api.sample import sample
from gateway.api.server import endpoints
from tests.support.api import World, open_world
from tests.support.browser import browser, needs_browser
from tests.support.schemathesis import served

DOCUMENT = document(endpoints())
SCHEMAS = DOCUMENT["components"]["schemas"]


class Parsed(HTMLParser):
    """The page's tags, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "srcset", "data"):
                self.links.append(value or "")
            assert not name.startswith("on"), "a script"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
async def world(db: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db, tmp_path) as opened:
        yield opened


def test_the_page_holds_every_route_status_and_problem_type() -> None:
    shown = Parsed(page(DOCUMENT).decode())
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in shown.text
            assert operation["operationId"] in shown.ids
    for name in SCHEMAS:
        assert f"schema-{name}" in shown.ids


def test_every_link_of_the_page_leads_to_something() -> None:
    shown = Parsed(page(DOCUMENT).decode())
    assert len(set(shown.ids)) == len(shown.ids), "an id is there twice"
    for link in shown.links:
        assert link in ("data:,", "/openapi.json") or (link[:1] == "#" and link[1:] in shown.ids), link


def test_the_page_has_no_script_and_loads_nothing() -> None:
    shown = Parsed(page(DOCUMENT).decode())
    assert not shown.tags & {"script", "img", "iframe", "object", "embed", "form", "video", "audio"}
    assert "url(" not in page(DOCUMENT).decode()


def test_what_the_document_says_cannot_become_markup() -> None:
    hostile: dict[str, Any] = {
        **DOCUMENT,
        "info": {**DOCUMENT["info"], "description": "<script>alert(1)</script> `<b>`"},
    }
    text = page(hostile).decode()
    assert "<script" not in text
    assert "<code>&lt;b&gt;</code>" in text


@pytest.mark.parametrize(
    ("path", "method", "operation"),
    [pytest.param(path, method, operation, id=f"{method.upper()} {path}")
     for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()],
)  # fmt: skip
def test_an_example_fits_the_schema_of_its_route(path: str, method: str, operation: dict[str, Any]) -> None:
    words = shlex.split(example(path, method, operation, SCHEMAS).replace("\\\n", ""))
    url = next(word for word in words if word.startswith("$GATEWAY"))
    assert "{" not in url
    assert ("Authorization: Bearer $KEY" in words) == ("security" in operation)
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            value = sample(parameter["schema"], SCHEMAS, parameter["name"])
            Draft202012Validator(parameter["schema"]).validate(value)
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema is not None:
        whole = {**schema, "components": {"schemas": SCHEMAS}}
        Draft202012Validator(whole).validate(sample(schema, SCHEMAS))


async def test_the_page_is_given_with_a_policy_that_lets_it_load_nothing(world: World) -> None:
    response = await world.public.call("GET", "/docs", expect=200)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert (await world.public.call("GET", "/openapi.json", expect=200)).json() == DOCUMENT


async def test_a_browser_shows_the_page_without_another_request(world: World, tmp_path: Path) -> None:
    program = needs_browser()
    async with served(world.services) as (address, watched), browser(program, tmp_path / "profile") as tab:
        await tab.open(f"{address}/docs")
        assert [url for url in tab.requests() if not url.startswith("data:")] == [f"{address}/docs"]
        assert watched.answers == 1
        assert tab.complaints() == [], "its policy refused something of the page itself"
        assert "Delivery gateway" in await tab.value("document.title")
        assert (
            await tab.value("getComputedStyle(document.querySelector('nav ul')).listStyleType") == "none"
        ), "its style holds"
        await tab.call(
            "Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True
        )
        assert await tab.value("document.documentElement.scrollWidth <= 360"), "it fits a narrow screen"
