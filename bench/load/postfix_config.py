"""What a benchmark's Postfix and OpenDKIM are told: main.cf, master.cf (postconf(5), master(5)) and opendkim.conf(5). Pure.

Owns their texts, and the tuning for throughput: as a mail-ops person would, so that the comparison is with Postfix at its
best, and nothing that risks a mail (`fsync` stays). Must not know who starts them, or where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

TUNING: Final = {
    # As many deliveries at once as the gateway has connections a lane, from the first mail on: without the first line a
    # destination starts with 5 and gains one a success.
    "initial_destination_concurrency": "20",
    "default_destination_concurrency_limit": "20",
    "smtp_destination_concurrency_limit": "20",
    # One connection takes one mail after another: always, not only when the queue has piled up.
    "smtp_connection_cache_on_demand": "yes",
    "smtp_connection_cache_destinations": "$relayhost",
    # Processes stay: by default each ends after 100 uses, and starting one costs as much as some mails.
    "default_process_limit": "200",
    "max_use": "100000",
    "max_idle": "3600s",
    # Cleanup does not wait for the queue manager; no counting of clients; no look-ups that a relay has no use for.
    "in_flow_delay": "0",
    "smtpd_client_event_limit_exceptions": "$mynetworks",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_peername_lookup": "no",
    "local_header_rewrite_clients": "",
    "receive_override_options": "no_unknown_recipient_checks,no_header_body_checks,no_address_mappings",
}
"""What a mail-ops person sets for throughput, beside the defaults; nothing that risks a mail."""

_MAIN_CF: Final = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = relay.site.test
mydomain = site.test
myorigin = $myhostname
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
local_recipient_maps =
local_transport = error:no local delivery
alias_maps =
alias_database =
append_dot_mydomain = no
biff = no
notify_classes =
relayhost = [127.0.0.1]:{receiver}
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
"""

_MILTER: Final = """\
smtpd_milters = unix:{socket}
milter_default_action = tempfail
milter_protocol = 6
"""

_MASTER_CF: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_OPENDKIM_CONF: Final = """\
Mode s
Domain {domain}
Selector {selector}
KeyFile {folder}/key.pem
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From
InternalHosts 127.0.0.1
Socket local:{socket}
UMask 007
Background no
AutoRestart no
RequireSafeKeys no
Syslog no
SoftwareHeader no
"""


class Signing(msgspec.Struct, frozen=True):
    """What OpenDKIM signs with."""

    domain: str
    selector: str
    private_key_pem: bytes


def main_cf(folder: Path, receiver: int, milter: Path | None) -> str:
    """The text of main.cf: everything to the receiver's port on loopback; through this milter's socket, if any."""
    tuning = "".join(f"{key} = {value}\n" for key, value in TUNING.items())
    text = _MAIN_CF.format(folder=folder, receiver=receiver) + tuning
    return text + (_MILTER.format(socket=milter) if milter else "")


def master_cf(port: int) -> str:
    """The text of master.cf: Postfix's own services, not chrooted, one listener on loopback."""
    return _MASTER_CF.format(port=port)


def opendkim_conf(folder: Path, listen: Path, signing: Signing) -> str:
    """The text of opendkim.conf: sign everything of the domain, relaxed/relaxed."""
    return _OPENDKIM_CONF.format(
        folder=folder, socket=listen, domain=signing.domain, selector=signing.selector
    )
