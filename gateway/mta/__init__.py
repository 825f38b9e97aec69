"""The SMTP side: MX resolution, MIME, DKIM, sessions and replies."""
