"""What the values of `gateway.toml` mean together: the mistakes that no single key's bounds can say. Pure."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network

from gateway.config.sections import Config, MailConfig, MxConfig, SubmissionConfig
from gateway.config.strict_toml import KeyPath

Mistake = tuple[KeyPath, str, str]
"""Key, problem, hint."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def inconsistencies(config: Config) -> list[Mistake]:
    """Return what no single key's bounds can say: key, problem, and what would be right."""
    found: list[Mistake] = []
    dispatch, route = config.dispatch, config.route
    if dispatch.urgent_reserve >= dispatch.in_flight:
        found.append(
            (
                ("dispatch", "urgent_reserve"),
                f"{dispatch.urgent_reserve} leaves nothing for other deliveries",
                f"below dispatch.in_flight ({dispatch.in_flight})",
            )
        )
    if dispatch.heartbeat_s * 3 > dispatch.lease_s:
        found.append(
            (
                ("dispatch", "heartbeat_s"),
                f"{dispatch.heartbeat_s:g} is too long for a lease of {dispatch.lease_s:g} s",
                f"at most {dispatch.lease_s / 3:g}, so that two lost heartbeats do no harm",
            )
        )
    targets = {("route", "default"): route.default} if route.default else {}
    targets |= {("route", "domains", domain): target for domain, target in route.domains.items()}
    for key, target in targets.items():
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            found.append((key, f'"{target}" is not host:port', 'for example "127.0.0.1:2525"'))
        if key[-1] != key[-1].lower():
            found.append((key, "not lower case", f'"{key[-1].lower()}"'))
    found += _shared_sockets(config) + _half_a_platform(config.mail) + _wrong_addresses(config.mx)
    return found + _unsafe_submission(config.submission)


def _shared_sockets(config: Config) -> list[Mistake]:
    api, listen, submission = config.api, config.listen, config.submission
    sockets = [
        ("API", "api", "port", api.host, api.port),
        ("listener", "listen", "port", listen.host, listen.port),
    ]
    if submission.is_on:
        sockets.append(("SMTP door", "submission", "port", submission.host, submission.port))
        if submission.tls_port:
            sockets.append(("SMTP door", "submission", "tls_port", submission.host, submission.tls_port))
    if config.metrics.port:
        sockets.append(("node's page", "metrics", "port", config.metrics.host, config.metrics.port))
    everywhere = {"0.0.0.0", "::", ""}  # noqa: S104 (compared, not bound)
    found: list[Mistake] = []
    for number, (_, section, key, host, port) in enumerate(sockets):
        for who, other, other_key, other_host, other_port in sockets[:number]:
            if port == other_port and (host == other_host or {host, other_host} & everywhere):
                hint = f"another one than [{other}] {other_key}"
                found.append(((section, key), f"{port} is the {who}'s port too", hint))
    return found


def _unsafe_submission(submission: SubmissionConfig) -> list[Mistake]:
    """A key that could be read on the way, and half a certificate."""
    found: list[Mistake] = []
    if not submission.require_tls and submission.host not in _LOOPBACK:
        problem = f"keys could be read on the way to {submission.host or 'every address'}"
        found.append(
            (("submission", "require_tls"), problem, "false only on loopback (127.0.0.1, ::1, localhost)")
        )
    if bool(submission.certificate_file) != bool(submission.key_file):
        missing = "key_file" if submission.certificate_file else "certificate_file"
        found.append(
            (("submission", missing), "a certificate and its key go together", "set both, or neither")
        )
    if submission.tls_port and not submission.certificate_file:
        found.append(
            (("submission", "tls_port"), "TLS without a certificate", "set submission.certificate_file")
        )
    return found


def _half_a_platform(mail: MailConfig) -> list[Mistake]:
    if bool(mail.platform_domain) == bool(mail.platform_key_file):
        return []
    missing, given = ("platform_key_file", "platform_domain")
    if mail.platform_key_file:
        missing, given = given, missing
    return [(("mail", missing), f"empty, but {given} is set", "the platform's signature needs both")]


def _wrong_addresses(mx: MxConfig) -> list[Mistake]:
    """What is no address of a name server, or no network."""
    found: list[Mistake] = []
    for nameserver in mx.nameservers:
        if not _is_ip_port(nameserver):
            hint = 'for example "192.0.2.53", "127.0.0.1:5353" or "[2001:db8::53]:53"'
            found.append((("mx", "nameservers"), f'"{nameserver}" is neither IP address nor ip:port', hint))
    for network in mx.allow_networks:
        try:
            ip_network(network)
        except ValueError as error:
            hint = 'for example "10.0.0.0/8" or "fd00::/8"'
            with suppress(ValueError):
                hint = f'did you mean "{ip_network(network, strict=False)}"?'
            found.append((("mx", "allow_networks"), f'"{network}" is no network: {error}', hint))
    return found


def _is_ip_port(text: str) -> bool:
    """Whether text is an IP address, alone or with a port; an IPv6 address with a port stands in brackets."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest:
            port = rest.removeprefix(":") if rest.startswith(":") else ""
        if ":" not in host:
            return False
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ip_address(host)
    except ValueError:
        return False
    return port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535
