"""Two sites that both hold something of everything. In the second one each field has a word that stands nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

import asyncpg
import msgspec

from gateway.model.ids import Prefix, encode
from tests.support.api import Client, World

MARK = "qzxother"
"""Begins every word of the second site; long enough that no random key or token has it by chance."""
OWN, THEIRS = "alpha.example", f"{MARK}domain.example"


class Furnished(msgspec.Struct):
    """A site, its key, and ids of what it holds, by kind."""

    client: Client
    ids: Mapping[str, list[str]]


def word(field: str, marked: bool) -> str:
    """What stands in a field: in the second site, and there alone, it begins with `MARK`."""
    return f"{MARK if marked else 'own'}{field}"


async def furnish(world: World, pool: asyncpg.Pool, domain: str, *, marked: bool) -> Furnished:
    """Make a site, and one or more of everything in it."""

    def say(field: str) -> str:
        return word(field, marked)

    client = await world.site(say("site"), domain=domain)
    site = await client.get("/v1/keys")
    key = await client.post("/v1/keys", {"scopes": ["read"], "name": say("key")})
    contact = await client.post(
        "/v1/contacts",
        {
            "email": f"{say('contact')}@one.example",
            "first_name": say("first"),
            "last_name": say("last"),
            "phone": f"+33 {say('phone')}",
            "tags": [say("tag")],
            "fields": {say("field"): say("value")},
        },
    )
    listed = await client.post("/v1/lists", {"name": say("list")})
    await client.post(f"/v1/lists/{listed['id']}/members", {"contact": contact["id"]})
    lines = ["email,first_name,company", f"{say('imported')}@two.example,{say('given')},{say('company')}", f"{say('refused')},x,y"]  # fmt: skip
    imported = await client.post(
        f"/v1/imports?list={say('importlist')}",
        "\n".join(lines).encode(),
        headers={"content-type": "text/csv"},
    )
    template = await client.post(
        "/v1/templates",
        {"name": say("template"), "subject": f"{say('subject')} {{{{ first_name }}}}", "html": f"<p>{say('html')}</p>", "text": say("text")},
    )  # fmt: skip
    message = await client.post(
        "/v1/messages",
        {
            "from": f"{say('display')} <{say('from')}@{domain}>",
            "to": [f"{say('to')}@shared.example", f"{say('also')}@shared.example"],
            "subject": say("own"),
            "html": f"<p>{say('body')}</p>",
            "text": say("plain"),
            "reply_to": f"{say('reply')}@{domain}",
            "headers": {"X-Note": say("header")},
        },
    )
    broadcasts = [
        await client.post(
            "/v1/broadcasts",
            {
                "name": say(f"broadcast{number}"),
                "list": lst,
                "template": template["id"],
                "from": f"{say('news')} <news@{domain}>",
            },
        )
        for number, lst in enumerate((listed["id"], imported["list"], listed["id"]))
    ]
    await client.post(f"/v1/broadcasts/{broadcasts[1]['id']}/actions/send")
    for email in (f"gone@{'b' if marked else 'a'}.example", f"{say('suppressed')}@three.example"):
        await client.post(
            "/v1/suppressions", {"email": email, "reason": say("reason"), "evidence": say("evidence")}
        )
    erasure = await client.post("/v1/erasures", {"email": f"{say('forgotten')}@three.example"})
    ended = await _end_one(client, pool, f"{say('ended')}@shared.example", domain, say("replied"))
    return Furnished(
        client,
        {
            "site": [key["site"]],
            "key": [one["id"] for one in site["data"][1:]] + [key["id"]],
            "domain": [one["id"] for one in (await client.get("/v1/domains"))["data"]],
            "contact": [one["id"] for one in (await client.get("/v1/contacts"))["data"]],
            "list": [listed["id"], imported["list"]],
            "import": [imported["id"]],
            "template": [template["id"]],
            "message": [message["id"], ended],
            "broadcast": [one["id"] for one in broadcasts],
            "erasure": [erasure["id"]],
            "email": [f"gone@{'b' if marked else 'a'}.example"],
        },
    )


async def _end_one(client: Client, pool: asyncpg.Pool, to: str, domain: str, reply: str) -> str:
    """A message that was refused, as a dispatcher would write it, with the receiver's words."""
    message = await client.post(
        "/v1/messages", {"from": f"a@{domain}", "to": to, "subject": "x", "text": "y"}
    )
    await pool.execute(
        "WITH gone AS (DELETE FROM queue WHERE site_id = $1 AND recipient = $2 RETURNING *) INSERT INTO ended "
        "SELECT id, site_id, message_id, broadcast_id, lane_id, priority, 'bounced', 1, 0, 550, '5.1.1', $3, 'recipient', "
        "accepted_at, now(), recipient FROM gone",
        client.site_id, to, f"550 5.1.1 {reply}",
    )  # fmt: skip
    return message["id"]


async def digests(pool: asyncpg.Pool, site_id: int) -> dict[str, str]:
    """A digest of each table's rows of a site, and of how many there are."""
    tables = await pool.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE a.attname = 'site_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace"
    )
    found: dict[str, str] = {}
    for (table,) in tables:
        rows = await pool.fetch(f"SELECT t::text FROM {table} t WHERE site_id = $1 ORDER BY 1", site_id)
        found[table] = f"{len(rows)} rows, {sha256(repr([row[0] for row in rows]).encode()).hexdigest()}"
    found["site"] = str(await pool.fetchrow("SELECT * FROM site WHERE id = $1", site_id))
    return found


def marks(data: bytes) -> Iterator[str]:
    """The second site's words in an answer."""
    lower = data.lower()
    at = lower.find(MARK.encode())
    while at >= 0:
        yield lower[at : at + 24].decode(errors="replace")
        at = lower.find(MARK.encode(), at + 1)


async def suspend_shared_lane(pool: asyncpg.Pool) -> str:
    """Suspend the lane that both send to, after a refusal that names the second site's recipient; its id."""
    lane_id = await pool.fetchval("SELECT id FROM lane WHERE name = 'shared.example'")
    await pool.execute(
        "UPDATE lane_state SET suspended_until = 'infinity', suspended_why = $2 WHERE lane_id = $1",
        lane_id, f"550 5.7.1 <{MARK}to@shared.example> refused",
    )  # fmt: skip
    return encode(Prefix.LANE, lane_id)
