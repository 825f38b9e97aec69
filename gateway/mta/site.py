"""The site name of a domain: its MX set rolled up into one name, the same for all domains that share the hosts.

Owns the name alone; whoever looks the hosts up passes them in. Pure.

The hosts go into a tree by their labels, the last label first. A label that stands alone under its parent is joined to it with
a dot; where there are several they become a sorted group in brackets, and the group is followed by "?" when the name without
it is a host as well:

    gmail-smtp-in.l.google.com, alt1.gmail-smtp-in.l.google.com, alt2.…    →  (alt1|alt2)?.gmail-smtp-in.l.google.com
    mta5.am0.yahoodns.net, mta6.am0.yahoodns.net                           →  (mta5|mta6).am0.yahoodns.net

So the name depends on nothing but the set, and two sets never share one. (KumoMTA, whose form this is, merges label by label
from the right: shorter for sets like a.x, b.y, but then a.y, b.x has the same name.) A name longer than `LIMIT` becomes the
number of hosts, a hash and what they have in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

LIMIT: Final = 200
"""Longest site name, in characters."""

_HASH_HEX: Final = 16


def site_name(hosts: Iterable[str]) -> str:
    """Return the rolled-up name of a set of MX hosts; case, order, repetition and a final dot do not matter.

    No hosts give an empty name.
    """
    names = {host.rstrip(".").lower() for host in hosts} - {""}
    paths = sorted(tuple(reversed(name.split("."))) for name in names)
    shared = _shared(paths)
    rolled = _name(paths, len(shared))
    if len(rolled) <= LIMIT:
        return rolled
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:_HASH_HEX]
    head = f"({len(names)} hosts {digest})"
    while shared and len(head) + 1 + len(_joined(shared)) > LIMIT:
        shared = shared[:-1]
    return f"{head}.{_joined(shared)}" if shared else head


def _name(paths: list[tuple[str, ...]], depth: int) -> str:
    """Name paths (sorted, reversed labels) that agree in their first `depth` labels."""
    if not paths:
        return ""
    common = _joined(paths[0][:depth])
    longer = [path[depth:] for path in paths if len(path) > depth]
    if not longer:
        return common
    groups: dict[str, list[tuple[str, ...]]] = {}
    for path in longer:
        groups.setdefault(path[0], []).append(path)
    parts = sorted(_name(group, len(_shared(group))) for group in groups.values())
    optional = "?" if len(longer) < len(paths) else ""
    group = f"({'|'.join(parts)}){optional}"
    return f"{group}.{common}" if common else group


def _shared(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the labels in which all paths (sorted) begin alike."""
    if not paths:
        return ()
    first, last = paths[0], paths[-1]
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


def _joined(labels: tuple[str, ...]) -> str:
    return ".".join(reversed(labels))
