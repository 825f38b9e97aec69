"""An SMTP client that says what it is told to, whatever the protocol wants."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Self


class Peer:
    """One connection, with its reader and writer in reach."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Connect to loopback and hear the greeting."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        await peer.hears()
        return peer

    async def hears(self) -> str:
        """The next reply, its lines joined by newlines; empty when the other side hung up."""
        lines: list[str] = []
        async with asyncio.timeout(5):
            while True:
                line = (await self.reader.readline()).decode().rstrip("\r\n")
                lines.append(line)
                if line[3:4] != "-":
                    return "\n".join(lines)

    async def says(self, line: str | bytes) -> str:
        """Say a line (text gets its CRLF, bytes go as they are) and hear the reply."""
        self.writer.write(line if isinstance(line, bytes) else line.encode() + b"\r\n")
        return await self.hears()

    async def starts_tls(self) -> None:
        """STARTTLS, trusting whoever is there."""
        assert (await self.says("STARTTLS")).startswith("220")
        await self.shakes_hands()

    async def shakes_hands(self) -> None:
        """TLS from here on."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self.writer.start_tls(context)

    async def signs_in(self, key: str) -> str:
        """AUTH PLAIN with any user name."""
        return await self.says(f"AUTH PLAIN {plain(key)}")

    async def sends(self, message: bytes, *recipients: str, sender: str = "app@elsewhere.example") -> str:
        """One message (dot-stuffed already); the reply to its dot."""
        assert (await self.says(f"MAIL FROM:<{sender}>")).startswith("250")
        for recipient in recipients:
            assert (await self.says(f"RCPT TO:<{recipient}>")).startswith("250")
        assert (await self.says("DATA")).startswith("354")
        return await self.says(message + b".\r\n")


def plain(key: str, user: str = "apikey") -> str:
    """The initial response of AUTH PLAIN."""
    return base64.b64encode(f"\0{user}\0{key}".encode()).decode()
