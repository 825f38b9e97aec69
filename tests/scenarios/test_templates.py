"""F30: a template that loops without end, or makes a huge string, stops at its limits; it harms nobody else's mail, and says why."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import BULK, Fleet

LOOPING = (
    "{% for i in (1..1000) %}{% for j in (1..1000) %}{% if i > j %}{{ i }}{% endif %}{% endfor %}{% endfor %}"
)
HUGE = "{% assign s = 'x' %}{% for i in (1..40) %}{% assign s = s | append: s %}{% endfor %}{{ s }}"
LATE = "{{ name | divided_by: 0 }}"


async def template(fleet: Fleet, html: str) -> int:
    rows = await fleet.rows(
        "INSERT INTO message (id, site_id, domain_id, stream, sender, subject, html, text, template) "
        "SELECT nextval('acceptance_id'), site_id, domain_id, stream, sender, subject, $1, '', 'inline' FROM message WHERE id = $2 RETURNING id",
        html,
        fleet.messages[BULK],
    )
    return rows[0]["id"]


async def test_a_template_that_cannot_be_rendered_is_quarantined_with_its_reason(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet:
        plain = fleet.messages[BULK]
        bad: dict[str, list[int]] = {}
        for name, source in (("loop", LOOPING), ("huge", HUGE), ("late", LATE)):
            fleet.messages[BULK] = await template(fleet, source)
            bad[name] = await fleet.submit([f"{name}{i}@d.test" for i in range(3)])
        fleet.messages[BULK] = plain
        good = await fleet.submit(100, domains=3)
        dispatcher = await fleet.start("here")
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("delivered") == set(good)
        assert await fleet.ids_in("quarantined") == {id_ for ids in bad.values() for id_ in ids}
        said = {
            row["recipient"].rstrip("0123456789@.dtes")[:4]: row["reply"]
            for row in await fleet.rows("SELECT recipient, reply FROM ended WHERE state = 'quarantined'")
        }
        assert all("html" in reply for reply in said.values()), said
        assert dispatcher.status is None, "and the dispatcher lives"
