"""Questions to the resolver: MX, A, AAAA and TXT of one name, as data.

A thin shell around aiodns (c-ares). Owns the following of CNAMEs and what c-ares' errors mean; the meaning of the answers is
`mta/mx_plan.py`'s. RFC 1035, RFC 3596 (AAAA), RFC 2308 (NXDOMAIN and NODATA).

The system's resolver is asked, or those named: it follows CNAMEs itself. Where one gives a CNAME alone, its target is asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import aiodns
import pycares

from gateway.mta.mx_plan import Absent, Answer, Exchange, Found, Unanswered

CNAME_LIMIT: Final = 8
"""Longest chain of CNAMEs that is followed."""

# c-ares waits for as long as the server's usual answers suggest (from 0.25 s, doubled each time): a quick resolver gets 3 to 4 s
# in four tries, which one slow domain's servers may well take (c-ares 1.34, measured 2026-11). A time-out is asked again until
# the caller's patience ends; a SERVFAIL is asked four times, at the other name servers if there are some.
_TRIES: Final = 4
_FIRST_WAIT_S: Final = 2.0
_ROUNDS: Final = 20

_Type = Literal["MX", "A", "AAAA", "TXT"]
_TYPES: Final[dict[_Type, int]] = {
    "MX": pycares.QUERY_TYPE_MX,
    "A": pycares.QUERY_TYPE_A,
    "AAAA": pycares.QUERY_TYPE_AAAA,
    "TXT": pycares.QUERY_TYPE_TXT,
}


class Dns:
    """A channel to the name servers; made on the running loop. Any number of questions may be open at once."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._resolver = aiodns.DNSResolver(
            nameservers=list(nameservers) or None, timeout=_FIRST_WAIT_S, tries=_TRIES
        )

    async def exchanges(self, name: str) -> Answer[Exchange]:
        """Look up MX records, in no order."""
        answer = await self._ask(name, "MX")
        if not isinstance(answer, Found):
            return answer
        found = [record for record in answer.values if isinstance(record, pycares.MXRecordData)]
        return Found(
            tuple(Exchange(record.priority, _plain(record.exchange)) for record in found), answer.ttl_s
        )

    async def v4(self, name: str) -> Answer[str]:
        """Look up A records."""
        return await self._addresses(name, "A")

    async def v6(self, name: str) -> Answer[str]:
        """Look up AAAA records, as the shortest text of each address."""
        return await self._addresses(name, "AAAA")

    async def texts(self, name: str) -> Answer[str]:
        """Look up TXT records, in no order: the strings of each joined (RFC 7208 §3.3), octets that are no UTF-8 replaced."""
        answer = await self._ask(name, "TXT")
        if not isinstance(answer, Found):
            return answer
        found = [record for record in answer.values if isinstance(record, pycares.TXTRecordData)]
        return Found(tuple(record.data.decode("utf-8", "replace") for record in found), answer.ttl_s)

    async def close(self) -> None:
        """Give up what is open; answers that did not come are Unanswered."""
        await self._resolver.close()

    async def _addresses(self, name: str, rdtype: _Type) -> Answer[str]:
        answer = await self._ask(name, rdtype)
        if not isinstance(answer, Found):
            return answer
        found = [
            str(ipaddress.ip_address(record.addr))
            for record in answer.values
            if isinstance(record, pycares.ARecordData | pycares.AAAARecordData)
        ]
        return Found(tuple(found), answer.ttl_s)

    async def _ask(self, name: str, rdtype: _Type) -> Answer[object]:
        passed = [name]
        ttls: list[int] = []
        while True:
            result = await self._query(passed[-1], rdtype)
            if not isinstance(result, pycares.DNSResult):
                return result
            cnames = {
                _plain(record.name): record.data.cname
                for record in result.answer
                if isinstance(record.data, pycares.CNAMERecordData)
            }
            asked_for = len(passed)
            if not _follow(cnames, passed):
                return Unanswered(
                    f"the CNAMEs of {name} go in circles or on for more than {CNAME_LIMIT} steps"
                )
            ttls += [record.ttl for record in result.answer]
            wanted = [record.data for record in result.answer if record.type == _TYPES[rdtype]]
            if wanted:
                return Found(tuple[object, ...](wanted), min(ttls))
            if len(passed) == asked_for:
                return Absent(name_exists=True)

    async def _query(self, name: str, rdtype: _Type) -> pycares.DNSResult | Absent | Unanswered:
        why = ""
        for _ in range(_ROUNDS):
            try:
                return await self._resolver.query_dns(name, rdtype)
            except aiodns.error.DNSError as error:
                code, why = int(error.args[0]), str(error.args[1])
            if code == aiodns.error.ARES_ENODATA:
                return Absent(name_exists=True)
            if code in (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_EBADNAME):
                return Absent(name_exists=False)
            if code != aiodns.error.ARES_ETIMEOUT:
                break
        return Unanswered(why)


def _follow(cnames: Mapping[str, str], passed: list[str]) -> bool:
    """Go along the CNAMEs of one answer, adding to the names passed; False for a circle or a chain without end."""
    while (target := cnames.get(passed[-1])) is not None:
        target = _plain(target)
        if target in passed or len(passed) > CNAME_LIMIT:
            return False
        passed.append(target)
    return True


def _plain(name: str) -> str:
    return name.rstrip(".").lower()
