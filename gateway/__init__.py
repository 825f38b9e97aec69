"""A high-throughput async delivery gateway: control API, Postgres queue, DKIM, SMTP."""
