"""What schemathesis cannot know of this API: what CSV looks like, and the rules that JSON Schema has no words for.

A request that fits the schema and is refused all the same is a fault of the document, unless a rule of `RULES` refused it: the 422 must
point at a place of the table. The program loads this file by itself (SCHEMATHESIS_HOOKS).
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.generation.meta import CoverageScenario
from schemathesis.specs.openapi.checks import negative_data_rejection

_MESSAGE = "POST /v1/messages"
_TRIALS = "POST /v1/(templates|broadcasts)/{id}/actions/test"
_CONTENTS = "(POST|PUT) /v1/(messages|templates|templates/{id})"
RULES: list[tuple[str, str, str]] = [
    # route, pointer, detail: regular expressions. Why JSON Schema cannot say it stands above each.
    # Postgres has no place for U+0000, anywhere.
    (".*", ".*", r"a NUL character \(U\+0000\)"),
    # 5.0 is an integer to JSON Schema, and a number with a fraction to us.
    (".*", ".*", r"^expected int( \| null)?, got float$"),
    # RFC 3339 has leap seconds and offsets that a time of ours has not.
    (".*", "/send_at", "^invalid RFC3339 encoded datetime$"),
    ("GET /v1/messages", "", "^created_(from|to): expected a time"),
    # The grammar of addresses and mailboxes (RFC 5321, RFC 5322, IDNA) is wider and narrower than the format idn-email.
    (".*", r"/(from|reply_to|email|to)(/\d+)?(/email|/name)?", ".*"),
    ("GET .*", "", "^(email|recipient|domain): "),
    ("POST /v1/domains", "/name", "^no domain name: "),
    # The name of a time zone is one of a long list that changes.
    ("(POST|PATCH) /v1/sites.*", "/time_zone", "^expected the name of a time zone"),
    # There must be what a body refers to.
    (".*", r"/(contact|list|template)|/contacts/\d+", "^there is no such (contact|list|template)$"),
    # Whose key asks.
    (".*/v1/keys", "(/site)?", "^a site's key makes and sees keys of its own site only$"),
    (".*/v1/keys", "(/site)?", "^site: required with an operator's key$"),
    # What time it is.
    ("POST /v1/broadcasts/{id}/actions/schedule", "/send_at", "^(expected a time to come|more than)"),
    (_MESSAGE, "/send_at", "^more than .* days ahead$"),
    # Parameters that exclude each other.
    ("GET /v1/contacts", "", "^email: not together with search, tag or list$"),
    ("GET /v1/messages", "", "^broadcast: not together with state or recipient$"),
    # A list by its id, or by the name of one to make.
    ("POST /v1/imports", "/list", "^(expected|character|no id|a name of)"),
    # Which columns a file has.
    ("POST /v1/suppressions/import", "", "column|the file is"),
    # A message has its own content, or a template's.
    (_MESSAGE, "/subject", "^required, unless there is a template$"),
    (_MESSAGE, "/template", "^a template brings subject, html and text"),
    (_MESSAGE, "/html", "^expected html or text, or both$"),
    # Subjects, header fields and attachments are checked by building a message of them.
    (_CONTENTS, "/subject", "."),
    (_MESSAGE, "/(headers|attachments).*", "."),
    # Liquid that does not compile, and what variables make of it.
    (_CONTENTS, "/(subject|html|text)", "."),
    ("POST /v1/templates/{id}/actions/(render|test)|POST /v1/broadcasts/{id}/actions/test", "", "^the template cannot be rendered so: "),
    # Octets, not characters, are limited.
    (_MESSAGE, ".*/variables", "bytes as JSON; at most"),
]  # fmt: skip
_NUMBERS = itertools.count()

schemathesis.openapi.media_type(
    "text/csv",
    st.builds(
        lambda header, rows: "\n".join([header, *rows]).encode(),
        st.sampled_from(["email", "email,first_name,company", "email,scope,reason", "name,town", ""]),
        st.lists(st.sampled_from(["a@b.example", "b@c.example,Ada,x", "c@d.example,marketing,y", "nobody", '"']) | st.text(max_size=30), max_size=5),
    ),
)  # fmt: skip


_UNIQUE = {
    "POST /v1/contacts": "email", "POST /v1/lists": "name", "PATCH /v1/lists/{id}": "name", "POST /v1/templates": "name",
    "PUT /v1/templates/{id}": "name", "POST /v1/domains": "name",
}  # fmt: skip
"""What there can be once: the second is a conflict, which would hide what else is wrong with it."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Most keys, names and addresses are new: one that was used is answered for that, and tests no more than that."""
    if getattr(case.meta.phase.data, "scenario", None) == CoverageScenario.MISSING_PARAMETER:
        return  # a case that was changed is sent with its Authorization
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!-~]{1,240}", key) and (number := next(_NUMBERS)) % 8:
        case.headers["Idempotency-Key"] = f"{key}-{number}"
    field = _UNIQUE.get(case.operation.label, "")
    value = case.body.get(field) if isinstance(case.body, dict) else None
    if isinstance(value, str) and re.fullmatch(r"\w[\w.@-]{0,100}", value) and (number := next(_NUMBERS)) % 4:
        case.body[field] = f"{value}{number}.example" if field == "name" else f"n{number}{value}"


@schemathesis.check
def refused_by_a_rule_that_is_known(ctx: Any, response: Any, case: Any) -> None:
    """In place of `positive_data_acceptance` where that sees a 422."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 422:
        return
    problem = response.json()
    if problem["type"] == "idempotency_mismatch":
        return
    route = f"{case.method.upper()} {case.operation.path}"
    for error in problem["errors"]:
        known = any(
            re.fullmatch(at, route)
            and re.fullmatch(where, error["pointer"], re.DOTALL)
            and re.search(what, error["detail"])
            for at, where, what in RULES
        )
        assert known, f"{route} refused what fits its schema: {error['pointer']}: {error['detail']}"


@schemathesis.check
def wrong_items_of_a_batch_are_refused_one_by_one(ctx: Any, response: Any, case: Any) -> None:
    """In place of `negative_data_rejection` for the one route that takes many things at once."""
    if case.operation.label != _MESSAGE or case.meta is None:
        return
    if isinstance(case.body, list) and response.status_code == 202:
        answers = response.json()["data"]
        assert len(answers) == len(case.body)
        if case.meta.generation.mode.is_negative and not (case.query or case.headers):
            assert any("error" in one for one in answers), "a wrong item was accepted"
        return
    negative_data_rejection(ctx, response, case)
