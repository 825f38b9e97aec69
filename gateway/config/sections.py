"""Every key of `config/gateway.toml`: its type, bounds and default.

The file's comments say what each key means; a test holds the two together. Pure.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=1, le=65_535)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[float, Meta(ge=0.0, le=31_536_000.0)]
Timeout = Annotated[float, Meta(gt=0.0, le=3_600.0)]
Schedule = Annotated[tuple[Seconds, ...], Meta(min_length=1, max_length=50)]
HostName = Annotated[str, Meta(pattern=r"^([A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?)?\Z")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the file: unknown keys are refused."""


class DatabaseConfig(Section, frozen=True):
    """Where Postgres is, and where local state lives."""

    dsn: str = ""
    dsn_file: str = ""
    data_dir: str = "data"
    api_pool_size: Annotated[int, Meta(ge=1, le=1_000)] = 10
    dispatch_pool_size: Annotated[int, Meta(ge=2, le=1_000)] = 4
    acquire_timeout_s: Timeout = 5.0

    def __repr__(self) -> str:
        """Say all but the DSN, which may carry a password."""
        return f"DatabaseConfig(dsn={'…' if self.dsn else ''!r}, data_dir={self.data_dir!r})"


class ApiConfig(Section, frozen=True):
    """The control API's listening socket, and how much it takes."""

    host: str = "127.0.0.1"
    port: Port = 8080
    body_limit_bytes: Annotated[int, Meta(ge=1_024, le=1_073_741_824)] = 16_777_216
    public_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+\Z")] = "http://127.0.0.1:8080"
    requests_per_s: Annotated[float, Meta(ge=0.1, le=1_000_000.0)] = 5_000.0
    requests_burst: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    backlog_limit: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000


class DispatchConfig(Section, frozen=True):
    """One dispatcher process: what it holds, how it paces, when it gives up."""

    workers: Annotated[int, Meta(ge=0, le=256)] = 1
    niceness: Annotated[int, Meta(ge=0, le=19)] = 5
    in_flight: Count = 500
    urgent_reserve: Annotated[int, Meta(ge=0, le=100_000)] = 50
    claim_rows: Annotated[int, Meta(ge=1, le=10_000)] = 400
    max_lanes_per_claim: Annotated[int, Meta(ge=1, le=10_000)] = 100
    connections_per_lane: Annotated[int, Meta(ge=1, le=1_000)] = 5
    messages_per_connection: Count = 100
    idle_connection_s: Seconds = 5.0
    lease_s: Annotated[float, Meta(ge=0.5, le=600.0)] = 15.0
    heartbeat_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 1.0
    grace_s: Seconds = 30.0
    ack_interval_ms: Annotated[int, Meta(ge=1, le=1_000)] = 25
    ack_rows: Annotated[int, Meta(ge=1, le=10_000)] = 400
    late_tolerance_ms: Annotated[int, Meta(ge=1, le=60_000)] = 100
    helo_name: HostName = ""
    tls: Literal["none", "opportunistic", "require"] = "opportunistic"
    connect_timeout_s: Timeout = 30.0
    banner_timeout_s: Timeout = 300.0
    mail_timeout_s: Timeout = 300.0
    rcpt_timeout_s: Timeout = 300.0
    data_timeout_s: Timeout = 120.0
    data_block_timeout_s: Timeout = 180.0
    min_transfer_bytes_per_s: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 500
    dot_timeout_s: Timeout = 600.0


class ListenConfig(Section, frozen=True):
    """The listener for bounces and complaints."""

    host: str = "127.0.0.1"
    port: Port = 8025


class SubmissionConfig(Section, frozen=True):
    """The door for apps that speak SMTP: off without a certificate."""

    host: str = "127.0.0.1"
    port: Port = 8587
    tls_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    certificate_file: str = ""
    key_file: str = ""
    require_tls: bool = True
    message_limit_bytes: Annotated[int, Meta(ge=65_536, le=104_857_600)] = 16_777_216

    @property
    def is_on(self) -> bool:
        """Whether there is such a door."""
        return bool(self.certificate_file) or not self.require_tls


class MailConfig(Section, frozen=True):
    """Our own names in what we send."""

    bounce_domain: Annotated[HostName, Meta(min_length=1)] = "bounces.localhost"
    message_id_domain: Annotated[HostName, Meta(min_length=1)] = "localhost"
    sender_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{5,15}\Z")] = "gateway"
    platform_domain: HostName = ""
    platform_selector: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z")] = "platform"
    platform_key_file: str = ""


class TrackConfig(Section, frozen=True):
    """What marketing mail tells us back."""

    url: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?)?\Z")] = ""

    @property
    def base(self) -> str:
        """The URL with a slash at its end; empty: nothing is tracked."""
        return f"{self.url.rstrip('/')}/" if self.url else ""


class KeysConfig(Section, frozen=True):
    """The envelope key that seals DKIM private keys and derives MACs."""

    master_key_file: str = ""


class RouteConfig(Section, frozen=True):
    """Where mail physically goes instead of to the MX; lanes stay those of the recipients' domains."""

    default: str = ""
    domains: dict[str, str] = msgspec.field(default_factory=dict[str, str])

    def host_port(self, domain: str) -> tuple[str, int] | None:
        """Return the override for a domain (lower case, A-labels), or None: its MX decide."""
        target = self.domains.get(domain) or self.default
        if not target:
            return None
        host, _, port = target.rpartition(":")
        return host.strip("[]"), int(port)


class MxConfig(Section, frozen=True):
    """How the MX hosts of a domain are found, and which addresses mail may go to."""

    nameservers: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    timeout_s: Timeout = 20.0
    ipv6: bool = False
    allow_networks: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    port: Port = 25

    @property
    def allowed(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`allow_networks` as networks.

        Raises:
            ValueError: an entry that is no network; `load` has refused it.
        """
        return tuple(ip_network(network) for network in self.allow_networks)


class RetryConfig(Section, frozen=True):
    """When a deferred delivery is tried again: the wait after attempt 1, 2, 3 …; the last one repeats."""

    greylist_s: Schedule = (300.0, 900.0, 1_800.0)
    connection_s: Schedule = (300.0, 600.0, 1_200.0, 2_400.0, 3_600.0)
    rate_s: Schedule = (30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0)
    mailbox_full_s: Schedule = (14_400.0, 28_800.0, 43_200.0)
    other_s: Schedule = (1_800.0, 3_600.0, 7_200.0, 14_400.0, 21_600.0)
    jitter_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2


class ExpiryConfig(Section, frozen=True):
    """How long after its acceptance a delivery is given up."""

    one_time_code_s: Seconds = 900.0
    transactional_s: Seconds = 172_800.0
    marketing_s: Seconds = 259_200.0


class DoubtConfig(Section, frozen=True):
    """How long a delivery in doubt waits for evidence before its stream's policy acts."""

    transactional_wait_s: Seconds = 60.0
    bulk_wait_s: Seconds = 3_600.0


class Config(Section, frozen=True):
    """The whole file."""

    database: DatabaseConfig = DatabaseConfig()
    api: ApiConfig = ApiConfig()
    dispatch: DispatchConfig = DispatchConfig()
    listen: ListenConfig = ListenConfig()
    submission: SubmissionConfig = SubmissionConfig()
    mail: MailConfig = MailConfig()
    track: TrackConfig = TrackConfig()
    keys: KeysConfig = KeysConfig()
    route: RouteConfig = msgspec.field(default_factory=RouteConfig)
    mx: MxConfig = MxConfig()
    retry: RetryConfig = RetryConfig()
    expiry: ExpiryConfig = ExpiryConfig()
    doubt: DoubtConfig = DoubtConfig()

    @property
    def data_dir(self) -> Path:
        """Directory of local state: embedded Postgres, journals, the envelope key."""
        return Path(self.database.data_dir)

    @property
    def master_key_path(self) -> Path:
        """File of the envelope key: the configured one, or `master.key` under `data_dir`."""
        return Path(self.keys.master_key_file) if self.keys.master_key_file else self.data_dir / "master.key"
