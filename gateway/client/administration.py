"""What the gateway answers to those who administer it: domains, keys, sites, lanes, as Structs. Pure.

Owns their fields, as `client/results` does for mail.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class DnsRecord(msgspec.Struct, frozen=True):
    """A DNS record to publish."""

    type: str
    name: str
    value: str


class Domain(msgspec.Struct, frozen=True):
    """A sending domain and the records that it needs."""

    id: str
    name: str
    status: str
    records: list[DnsRecord]
    created_at: datetime
    verified_at: datetime | None


class Key(msgspec.Struct, frozen=True):
    """A key without its text; `site` None: an operator's."""

    id: str
    site: str | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(msgspec.Struct, frozen=True):
    """A key just made. `key` is its text, which neither `repr` nor a log shows."""

    id: str
    site: str | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    key: str

    def __repr__(self) -> str:
        """Everything but the key's text."""
        return f"CreatedKey(id={self.id!r}, site={self.site!r}, name={self.name!r}, prefix={self.prefix!r}, scopes={self.scopes!r})"


class SiteHold(msgspec.Struct, frozen=True):
    """Why nothing is sent, and since when."""

    why: str
    since: datetime | None


class Site(msgspec.Struct, frozen=True):
    """A site. `hold`: all its sending is stopped."""

    id: str
    name: str
    time_zone: str
    status: str
    campaigns: bool
    created_at: datetime
    hold: SiteHold | None = None


class LaneLimit(msgspec.Struct, frozen=True):
    """Limits that an operator gave; None: as the throttles say."""

    rate_per_s: float | None
    burst: float | None
    max_connections: int | None
    until: datetime
    why: str
    created_at: datetime


class LaneHold(msgspec.Struct, frozen=True):
    """One thing that keeps a lane from sending. `until` None: nobody knows."""

    code: str
    text: str
    until: datetime | None = None
    since: datetime | None = None


class Lane(msgspec.Struct, frozen=True):
    """A lane: `ready` deliveries wait for it, `waiting` for their next try; of either no more than 1,000 are counted.

    `leased`: what dispatchers have in hand; a lane that is drained has none.
    """

    id: str
    name: str
    source: str
    rate_per_s: float
    burst: float
    max_connections: int
    tokens: float
    ready: int
    waiting: int
    leased: int
    held: list[LaneHold]
    limit: LaneLimit | None
    used_at: datetime
