"""What enhanced codes and reply texts mean: data only, read by `mta/reply.py`.

Codes are keyed without their class digit ("1.1" stands for 5.1.1 and 4.1.1). Sources: RFC 3463, RFC 5248 and the IANA
registry of enhanced status codes (2026-01), and the senders' pages of Gmail, Microsoft and Yahoo (2024 to 2026).

Texts are tried from top to bottom and the first hit wins, so whatever speaks of the sender, its reputation or its rate
stands above "no such user": a wrong `invalid` suppresses a living address, a wrong `policy` costs one retry.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.model.disposition import BounceClass

# The address or its domain does not exist: believed unless the text speaks of the sender (see PROTECTS).
NO_SUCH_CODES: Final = frozenset({
    "1.1",  # bad destination mailbox address
    "1.2",  # bad destination system address: the domain does not exist
    "1.3",  # bad destination mailbox address syntax
    "1.6",  # mailbox has moved, no forwarding address
    "1.10",  # recipient address has null MX (RFC 7505); Exchange: recipient not found
})  # fmt: skip

# Codes that say enough by themselves: the text is not looked at.
FIRM_CODES: Final[dict[str, BounceClass]] = {
    "1.7": BounceClass.POLICY,  # sender's mailbox address syntax
    "1.8": BounceClass.POLICY,  # sender's system address
    "2.2": BounceClass.MAILBOX_FULL,
    "2.3": BounceClass.SIZE,  # longer than this mailbox takes
    "3.4": BounceClass.SIZE,
    "4.7": BounceClass.EXPIRED,  # a relay gave up
    "5.3": BounceClass.RATE,  # too many recipients (RFC 5321 §4.5.3.1.10)
    "6.7": BounceClass.CONTENT,  # non-ASCII addresses not permitted (RFC 6531)
    "7.20": BounceClass.AUTH,  # no passing DKIM signature found (RFC 7372), and so on to 7.26
    "7.21": BounceClass.AUTH,
    "7.22": BounceClass.AUTH,
    "7.23": BounceClass.AUTH,
    "7.24": BounceClass.AUTH,
    "7.25": BounceClass.POLICY,  # reverse DNS validation failed
    "7.26": BounceClass.AUTH,
    "7.27": BounceClass.POLICY,  # sender address has null MX
    "7.28": BounceClass.RATE,  # mail flood detected; Gmail's rate limits
    "7.29": BounceClass.AUTH,  # ARC validation failure
    "7.509": BounceClass.AUTH,  # Microsoft: DMARC
    "7.515": BounceClass.AUTH,  # Microsoft 2025: authentication required of senders in volume
    "7.650": BounceClass.RATE,  # Microsoft 4.7.650 to 652: rate by IP reputation, connections
    "7.651": BounceClass.RATE,
    "7.652": BounceClass.RATE,
}

# Where the text says nothing, the exact code, then its subject digit.
LOOSE_CODES: Final[dict[str, BounceClass]] = {
    "1.0": BounceClass.UNKNOWN,
    "1.4": BounceClass.UNKNOWN,  # ambiguous
    "1.5": BounceClass.OK,
    "1.9": BounceClass.PROTOCOL,  # relayed to a non-compliant mailer
    "2.0": BounceClass.UNKNOWN,
    "2.1": BounceClass.UNKNOWN,  # disabled, not accepting: the mailbox exists
    "2.4": BounceClass.POLICY,  # mailing list expansion
    "3.1": BounceClass.CONNECTION,  # the system is full, not the mailbox
    "3.2": BounceClass.CONNECTION,  # system not accepting network messages
    "3.3": BounceClass.PROTOCOL,
    "3.6": BounceClass.CONTENT,
    "4.4": BounceClass.UNKNOWN,  # unable to route
    "4.5": BounceClass.RATE,  # congestion
    "4.6": BounceClass.UNKNOWN,  # loop
    "4.8": BounceClass.POLICY,
    "4.14": BounceClass.UNKNOWN,  # Exchange: loop
    "7.17": BounceClass.UNKNOWN,  # mailbox owner has changed (RFC 7293)
    "7.18": BounceClass.UNKNOWN,  # domain owner has changed
}
SUBJECTS: Final[dict[str, BounceClass]] = {
    "1": BounceClass.UNKNOWN,
    "2": BounceClass.UNKNOWN,
    "3": BounceClass.UNKNOWN,
    "4": BounceClass.CONNECTION,
    "5": BounceClass.PROTOCOL,
    "6": BounceClass.CONTENT,
    "7": BounceClass.POLICY,
}
# And where there is no enhanced code at all (RFC 5321 §4.2.3).
BARE_CODES: Final[dict[int, BounceClass]] = {
    421: BounceClass.CONNECTION,
    432: BounceClass.RATE,
    450: BounceClass.UNKNOWN,
    451: BounceClass.UNKNOWN,
    452: BounceClass.CONNECTION,
    454: BounceClass.CONNECTION,
    500: BounceClass.PROTOCOL,
    501: BounceClass.PROTOCOL,
    502: BounceClass.PROTOCOL,
    503: BounceClass.PROTOCOL,
    504: BounceClass.PROTOCOL,
    521: BounceClass.POLICY,  # RFC 7504: host does not accept mail
    523: BounceClass.SIZE,
    530: BounceClass.POLICY,  # STARTTLS or AUTH required
    535: BounceClass.POLICY,
    552: BounceClass.MAILBOX_FULL,
    556: BounceClass.INVALID,  # RFC 7504, RFC 7505: domain does not accept mail
}


def _any(*alternatives: str) -> re.Pattern[str]:
    # Lower case on both sides: re.IGNORECASE costs four times as much (2026-01).
    return re.compile("|".join(alternatives).lower())


_LISTS = r"spamhaus|spamcop|barracuda|sorbs|proofpoint|cloudmark|invaluement|abuseat|uceprotect|senderbase|talosintelligence"
_WHO = r"(?:user|users|recipient|recipients|mailbox|mail ?box|account|address|addresses|addressee|alias|customer|person)"
_GONE = (
    r"(?:unknown|not found|not exist|n[o']t exist|not known|not listed|not recogni[sz]ed|unrecogni[sz]ed|undeliverable"
    r"|unroutable|unavailable|unavaiable|invalid|not (?:a )?valid|no longer (?:exists?|available|valid|on server|here)"
    r"|not (?:here|local|available)|missing|terminated|does not exist|doesn'?t exist|inconnu|is wrong)"
)

_BounceRule = tuple[BounceClass, re.Pattern[str]]

# Speaks of the sender, its reputation, rate or authentication. Overrules even 5.1.1: large receivers have answered
# 550 5.1.1 with "blocked using …" in the text.
PROTECTS: Final[tuple[_BounceRule, ...]] = (
    (
        BounceClass.GREYLIST,
        _any(
            r"gr[ae]y-?\s?list", r"postgrey", r"try (?:again )?in \d+ ?(?:s|m)", r"come back (?:later|in)",
            r"(?:initial|first) (?:delivery )?attempt", r"delayed for \d+",
        ),
    ),
    (
        BounceClass.AUTH,
        _any(
            r"\bdmarc\b", r"\bdkim\b", r"\bspf\b", r"sender policy framework", r"unauthenticated (?:e-?mail|mail|sender)",
            r"(?:isn'?t|is not|not) authenticated", r"authentication (?:checks?|results?|information) ",
        ),
    ),
    (
        BounceClass.RATE,
        _any(
            r"too many (?:connections?|concurrent|messages|recipients|e-?mails|errors|mails|sessions|invalid|login|\w+ connections)",
            r"(?:rate|frequency|throttl\w*|connection|hourly|daily|relay|volume|sending|message) ?-?(?:limit|quota|threshold)",
            r"rate limit|ratelimit|throttl(?:ed|ing)|limit(?:ed|ing)? .{0,20}\brate|frequency limited",
            r"(?:excessive|unusual|unexpected|abnormal) (?:volume|rate|number|traffic|connection)",
            r"(?:at|a|sending) (?:a )?rate (?:that|of)|too (?:fast|quickly|frequent)|try again slower|slow down",
            r"exceeded .{0,40}(?:connections|messages|recipients|rate)|max(?:imum)? .{0,12}message.{0,10} per (?:connection|session)",
            r"trop de connexions|message threshold exceeded|reached .{0,20}limit .{0,20}(?:sender|messages|connections)",
            r"\bCON-T\d|\bTSS0?[1-7]\b|\bRP-00[123]\b|number of (?:messages|connections|concurrent)",
        ),
    ),
    (
        BounceClass.SPAM,
        _any(
            r"spam", r"\bvirus", r"\bmalware|phish|\bscam\b|unsolicited|\bbulk (?:mail|email)|\bjunk\b",
            r"black ?-?list|block ?-?list|deny ?list|\brbl\b|\bdnsbl\b|\bsbl\b|\bxbl\b|\bpbl\b|\bcbl\b", _LISTS,
            r"reputation|senderscore|sender score|abus(?:e|ive)|complaints?\b|\bTSS(?:0?8|0?9|1\d)\b|suspicious|\b[SD]NSBL",
        ),
    ),
    (
        BounceClass.POLICY,
        _any(
            r"\b(?:e-?mails?|mails?|messages?|traffic|connections?|ip(?: address)?|host|client|server|access|network|you)\b"
            r".{0,40}\b(?:blocked|banned|denied|refused|prohibited|not allowed|forbidden|not permitted)",
            r"(?:blocked|banned|denied) (?:by|due|for|from|because|using|your)|access denied|permission denied",
            r"\bptr\b|reverse (?:dns|host|address|lookup|mapping)|\brdns\b|\bhelo\b|\behlo\b|dynamic ip|fcrdns|hostname lookup",
            r"sender\b.{0,40}(?:reject|unknown|invalid|not |n't|verif|block|denied|address|domain|exist|fail)",
            r"(?:unknown|invalid|bad|bogus|unresolvable|unverified|of) (?:envelope )?(?:sender|emetteur)|emetteur invalide",
            r"(?:bogus|invalid|unresolvable|rfc\.?5321)[ .]?(?:mail )?from\b|mail from\b|return.?path|responsible address|originator",
            r"allowed rcpthosts|\bpolic(?:y|ies)\b|\bAUP\b|security reasons?|not authori[sz]ed|unauthori[sz]ed|not a member|mailing list|\bbatv\b",
            r"backscatter|relay(?:ing)? (?:access )?(?:denied|not|prohibited)|unable to relay|not verified|verification fail",
            r"not accept(?:ing)? (?:mail|e-?mail|messages?) from|restricted|blocked address|message filtered|user rules|refuses to receive",
            r"\bblocked\b|\bbloques\b|permanently deferred|\bunsubscrib|by (?:the )?recipient|preferences",
        ),
    ),
)  # fmt: skip

# Speaks of the recipient or the message; tried after PROTECTS.
TELLS: Final[tuple[_BounceRule, ...]] = (
    (BounceClass.CONNECTION, _any(r"system storage|system (?:is )?full|insufficient system")),  # not the mailbox
    (
        BounceClass.MAILBOX_FULL,
        _any(
            r"(?:mail ?box|inbox|folder|account|user|recipient|storage|disk|quota|maildir).{0,40}\bfull\b|over ?-?quota|quota (?:exceed|violation|full)",
            r"(?:exceed|over|above|out of|beyond|insufficient|enough|reached|past).{0,40}(?:quota|storage|disk|space|mailbox|allocation)",
            r"(?:quota|storage|disk space|mailbox size|mailbox).{0,40}(?:exceed|exeed|exhaust|limit)|mailbox (?:is )?full|bo[iî]te .{0,20}pleine",
        ),
    ),
    (
        BounceClass.SIZE,
        _any(
            r"(?:message|mail|size|header|body|attachment).{0,40}(?:too (?:large|big)|size|maximum|\blimit\b)|(?:line|header|message|body) (?:is )?too long",
            r"(?:too (?:large|big)).{0,20}(?:message|mail)|exceed.{0,40}(?:message|header|attachment|maximum)?.?size|taille limite",
        ),
    ),
    (
        BounceClass.UNKNOWN,  # the mailbox exists, but takes nothing now: not a reason to suppress
        _any(
            r"disabled|suspended|deactivated|\binactive\b|not active|locked|is bloque|isblocked|discontinued|temporarily|try (?:again )?later|retry later",
            r"\bon hold\b|protected by|queue|loop",
        ),
    ),
    (
        BounceClass.CONTENT,
        _any(
            r"\bmime\b|duplicate header|\bheaders?\b|content (?:reject|not|filter|type)|attachment|message content|illegal characters|8-?bit|bare (?:lf|cr)|bad message",
        ),
    ),
    (
        BounceClass.INVALID,
        _any(
            rf"(?<!client )(?<!sender ){_WHO}\b(?:\(?s\)?)?.{{0,48}}\b{_GONE}",
            rf"(?:no such|unknown|invalid|non-?existent|unrout(?:e)?able|unrecogni[sz]ed|no|illegal|bad|wrong|incorrect)"
            rf" (?:or \w+ )?(?:local |e-?mail |mail |virtual |destination |rcpt )?{_WHO}\b(?! syntax)",
            r"(?:no such|unknown|non-?existent) (?:domain|host|person)|(?:host|domain) (?:unknown|not found|must exist)",
            r"(?:host|domain)(?: name| or domain name)? (?:name )?not found(?!, try)|destination addresses? (?:were|was|is) unknown",
            r"user(?:'s)? .{0,40}not found|does(?:n'?t| not) have an? .{0,60}account|no mail ?box|not our customer|no existe",
            r"can'?t accept user|recipient ?not ?(?:ok|found|exist)|badrcptto|badrecipientto|user unknown|unknown user",
            r"recipient (?:address )?(?:was )?rejected\.? ?(?:$|\()|not a (?:known|valid) (?:user|rfc 5321)|utilisateur inconnu|destinataire invalide",
            r"nullmx|null mx|has no mx|no mx record|account or domain may not exist|does(?:n'?t| not) exist here|there is no one",
        ),
    ),
    (
        BounceClass.PROTOCOL,
        _any(r"syntax error|bad sequence|out of (?:order|sequence)|unrecognized command|not implemented|pipelin|first\.?$"),
    ),
    (
        BounceClass.CONNECTION,
        _any(
            r"timed? ?-?out|connection (?:lost|refused|reset|closed|dropped)|service (?:not|currently|temporarily|un)|too busy|"
            r"(?:local|system|server) (?:problem|error|failure|busy|resources?)|system not accepting|closing (?:transmission|connection)",
        ),
    ),
)  # fmt: skip
