"""F30: a template that loops without end, or makes a huge string, stops at its limits; it harms nobody else's mail, and says why."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import Fleet

HOSTILE = {
    "loop": (
        "{% for i in (1..1000) %}{% for j in (1..1000) %}{% if i > j %}{{ i }}{% endif %}{% endfor %}{% endfor %}",
        "loop iteration limit",
    ),
    # No loop at all: a block that comes twice, in a block that comes twice, …
    "twice": ("{% case 1 %}{% when 1, 1 %}" * 40 + "x" + "{% endcase %}" * 40, "costs too much"),
    "huge": (
        "{% assign s = 'x' %}{% for i in (1..40) %}{% assign s = s | append: s %}{% endfor %}{{ s }}",
        "a value of more than",
    ),
    # 8,192 times the same 100 kB: 800 MB, if anybody joined them.
    "list": (
        "{% capture s %}{% for i in (1..1000) %}" + "x" * 100 + "{% endfor %}{% endcapture %}"
        "{% assign l = s | split: ',' %}{% for i in (1..13) %}{% assign l = l | concat: l %}{% endfor %}{{ l }}",
        "a value of more than",
    ),
    "lexer": ("{% comment %}" + "{{ " * 100_000, "a tag that does not end"),
    "late": ("{{ name | divided_by: 0 }}", "divide by 0"),
    # The engine would repeat the value, a NUL, for which Postgres has no place.
    "nul": ("{% assign a = '%00' | url_decode | split: ',' %}{{ a | uniq: 'k' }}", "can't read property"),
    "date": ("{{ '9999999999999999' | date: '%Y' }}", "html"),
}


async def test_a_template_that_cannot_be_rendered_is_quarantined_with_its_reason(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet:
        bad: dict[str, list[int]] = {}
        messages: dict[str, int] = {}
        for name, (source, _) in HOSTILE.items():
            messages[name] = await fleet.message(html=source, template=True)
            bad[name] = await fleet.submit(
                [f"{name}.{i}@d.test" for i in range(3)], message_id=messages[name]
            )
        good = await fleet.submit(100, domains=3)
        dispatcher = await fleet.start("here")
        await fleet.settled()
        await fleet.check()
        assert dispatcher.status is None, "and the dispatcher lives"
        assert await fleet.ids_in("delivered") == set(good)
        assert await fleet.ids_in("quarantined") == {id_ for ids in bad.values() for id_ in ids}
        for to, delivery in (await fleet.shown(*messages.values())).items():
            why = HOSTILE[to.partition(".")[0]][1]
            assert delivery["state"] == "quarantined"
            assert delivery["reply"].startswith("html"), delivery["reply"]
            assert why in delivery["reply"], delivery["reply"]


async def test_a_template_that_one_recipient_breaks_is_quarantined_for_that_one_alone(
    db: str, tmp_path: Path
) -> None:
    source = "{% for i in (1..times) %}{{ text }}{% endfor %}<p>Hello {{ name }}</p>"
    async with Fleet(db, tmp_path) as fleet:
        message = await fleet.message(html=source, template=True)
        (breaks, *fine) = await fleet.submit([f"u{i}@d.test" for i in range(20)], message_id=message)
        await fleet.rows(
            "UPDATE queue SET variables = CASE id WHEN $1 THEN $2 ELSE $3 END",
            breaks, '{"times": 20000, "text": "0123456789"}', '{"times": 2, "text": "0123456789"}',
        )  # fmt: skip
        await fleet.start("here")
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("quarantined") == {breaks}
        assert await fleet.ids_in("delivered") == set(fine)
