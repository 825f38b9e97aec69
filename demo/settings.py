"""The demo's own configuration: its ports, generous throttles, and waits that fit into a minute."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

_GATEWAY = """\
# The demo's configuration. Waits that are minutes and hours in life are seconds here.

[database]
data_dir = "{data_dir}"

[api]
port = {api_port}
public_url = "http://127.0.0.1:{api_port}"

[dispatch]
workers = {workers}
in_flight = 1000
connections_per_lane = 2

[listen]
port = {listen_port}

[route]
default = "127.0.0.1:{sink_port}"  # the receiving world, instead of everybody's MX

[retry]
greylist_s = [2, 2, 3]
connection_s = [2, 2, 3]
rate_s = [1, 2, 3]
mailbox_full_s = [2, 2, 3]
other_s = [2, 2, 3]

[doubt]
bulk_wait_s = 3600  # longer than the demo: what is in doubt stays so, and can be looked at
"""

_THROTTLES = """\
[default]
rate_per_s = 500.0
burst = 100
max_connections = 8
max_per_dispatcher = 4
messages_per_connection = 200
idle_connection_s = 3.0
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def write_settings(folder: Path, *, sink_port: int, workers: int) -> Path:
    """Write `gateway.toml` and `throttles.toml` into `folder`; the path of the first."""
    api_port, listen_port = free_ports(2)
    path = folder / "gateway.toml"
    path.write_text(
        _GATEWAY.format(
            data_dir=folder / "data",
            api_port=api_port,
            listen_port=listen_port,
            sink_port=sink_port,
            workers=workers,
        ),
        encoding="utf-8",
    )
    path.with_name("throttles.toml").write_text(_THROTTLES, encoding="utf-8")
    return path
