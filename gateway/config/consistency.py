"""What the values of `gateway.toml` mean together: the mistakes that no single key's bounds can say. Pure."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network

from gateway.config.sections import Config, MailConfig, MxConfig
from gateway.config.strict_toml import KeyPath

Mistake = tuple[KeyPath, str, str]
"""Key, problem, hint."""


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
    return found + _shared_socket(config) + _half_a_platform(config.mail) + _wrong_addresses(config.mx)


def _shared_socket(config: Config) -> list[Mistake]:
    api, listen = config.api, config.listen
    everywhere = {"0.0.0.0", "::", ""}  # noqa: S104 (compared, not bound)
    if api.port != listen.port or (api.host != listen.host and not {api.host, listen.host} & everywhere):
        return []
    return [(("listen", "port"), f"{listen.port} is the API's port too", "another one than [api] port")]


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
