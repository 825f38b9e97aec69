"""One connection of an app: greeting, STARTTLS, AUTH, then messages (RFC 6409, RFC 4954, RFC 3207).

Owns what of aiosmtpd is not as it must be here: TLS through the loop's own `start_tls`, a key that is looked up without blocking, the
content in blocks instead of lines. Must not know how a message is checked (`letter`) or stored (`submit`). What is bounded for every
peer, the listener's `Visit` bounds: admission, bare CR and LF, lines, bytes, commands, time.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, cast

from aiosmtpd.smtp import MISSING, AuthResult, LoginPassword

from gateway.feedback.line_guard import LineGuard
from gateway.feedback.listener import Visit
from gateway.model.address import Address
from gateway.store.sites import Holder
from gateway.submission.dots import DotReader
from gateway.submission.hooks import Hooks
from gateway.submission.lobby import HANDSHAKE_S, Lobby
from gateway.submission.submit import submit

SESSION_S: Final = 3_600.0
IDLE_S: Final = 300.0  # RFC 5321 §4.5.3.2.7
SIGN_IN_S: Final = 60.0
SESSION_BYTES: Final = 64 * 1_048_576
"""Of commands; the content of messages is bounded one by one."""
STRANGER_BYTES: Final = 65_536
"""Of commands, until a key was shown."""
COMMANDS: Final = {
    "*": 100, "AUTH": 5, "MAIL": 10_000, "RCPT": 100_000, "DATA": 10_000, "RSET": 10_000, "NOOP": 10_000,
}  # fmt: skip

_PATH: Final = re.compile(r"<([^<>\x00-\x1f\x7f]*)>(?: +(.*))?")
_NULL_PATH: Final = "<>"  # aiosmtpd takes an empty address for none
_HOOKS: Final = Hooks()


class Conversation(Visit):
    """A visit that may submit mail once it has shown a site's key."""

    # Mutable on purpose: where the connection stands.
    def __init__(self, lobby: Lobby, visits: set[Visit]) -> None:
        self.lobby = lobby
        self.is_encrypted = False
        self.recipients: dict[str, Address] = {}
        self.gone = asyncio.Event()
        """Set once the connection is."""
        self._holder: Holder | None = None
        self._token = ""
        self._dots: DotReader | None = None  # while content comes
        self._whole: asyncio.Future[None] | None = None
        self._is_submitting = False
        self._is_stranger = False  # counted among those who have shown no key
        self._goodbye = b""
        self._sign_in_end: asyncio.TimerHandle | None = None
        super().__init__(
            _HOOKS,
            lobby.doorkeeper,
            visits,
            lobby.hostname,
            guard=LineGuard(most=STRANGER_BYTES),
            session_s=SESSION_S,
            data_size_limit=lobby.limit_bytes,
            enable_SMTPUTF8=False,
            timeout=IDLE_S,
            command_call_limit=COMMANDS,
            auth_require_tls=False,  # that is `handle_AUTH`'s: aiosmtpd knows only of TLS that it began itself
        )

    @property
    def may_sign_in(self) -> bool:
        """Whether a key may be shown here: it must not be readable on the way."""
        return self.is_encrypted or not self.lobby.requires_tls

    @property
    def peer(self) -> str:
        """The other side's address."""
        return self._peer or ""

    @property
    def site_id(self) -> int:
        """Whose key was shown; 0 before."""
        return (self._holder.site_id or 0) if self._holder is not None else 0

    async def refusal(self) -> str:
        """Why this peer may send nothing now, as a reply; empty: it may."""
        if self._holder is None:
            return "530 5.7.0 authentication required"
        return await self.lobby.check_again(self._token)

    def hang_up(self, reply: bytes) -> None:
        """Say why, and close; between a message's dot and its reply only after that: it may be on disk already."""
        if self._is_submitting:
            self._goodbye = reply
        else:
            super().hang_up(reply)

    # -- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit or turn away; whoever shows no key in time goes."""
        self.is_encrypted = transport.get_extra_info("ssl_object") is not None  # by `threshold`
        super().connection_made(transport)
        if self.is_open:
            self._sign_in_end = self.loop.call_later(
                SIGN_IN_S, self.hang_up, b"421 4.4.2 authentication took too long"
            )

    def admit(self, peer: str) -> bool:
        """Count a peer in, among those without a key for now, who have a smaller share."""
        strangers = self.lobby.strangers
        if not strangers.admit(peer):
            return False
        if not super().admit(peer):
            strangers.leave(peer)
            return False
        self._is_stranger = True
        return True

    def leave(self, peer: str) -> None:
        """Count a peer out, wherever it was counted in."""
        self._known(peer)
        super().leave(peer)

    def data_received(self, data: bytes) -> None:
        """Hand commands to the listener's guard, and content to its reader."""
        dots = self._dots
        if dots is None:
            super().data_received(data)
            return
        if not self.is_open:
            return
        self._reset_timeout()  # aiosmtpd's counts from the last command; a message that comes slowly ends with the session
        before = dots.kept_bytes
        rest = dots.feed(data)
        if not dots.dropped and self.lobby.is_full_for(self.site_id):
            dots.drop()
        self.lobby.hold(self.site_id, dots.kept_bytes - before)
        if rest is None:
            if dots.endless:
                self.hang_up(b"552 5.3.4 a message without end")
            return
        self._dots = None
        if self._whole is not None and not self._whole.done():
            self._whole.set_result(None)
        if rest:
            super().data_received(rest)

    def connection_lost(self, error: Exception | None) -> None:
        """Count out."""
        if self._sign_in_end is not None:
            self._sign_in_end.cancel()
        self._dots = None
        super().connection_lost(error)
        self.gone.set()

    # -- commands ----------------------------------------------------------------------------------------------------

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """Begin TLS, and everything else anew (RFC 3207 §4.2)."""
        if arg:
            await self.push("501 5.5.4 STARTTLS takes no argument")
            return
        if self.is_encrypted or self.lobby.tls is None:
            await self.push(
                "503 5.5.1 " + ("TLS is on already" if self.is_encrypted else "TLS is not to be had")
            )
            return
        await self.push("220 2.0.0 go ahead")
        try:
            await self._writer.start_tls(self.lobby.tls, ssl_handshake_timeout=HANDSHAKE_S)
        except OSError as error:  # ssl.SSLError and TimeoutError among them
            self.connection_lost(error)
            return
        # What came in plaintext behind the command is nobody's (CVE-2011-0411).
        self._reader._buffer.clear()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        self.transport = self._line = cast("asyncio.Transport", self._writer.transport)
        self._reader._transport = self.transport  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        self.is_encrypted = True
        self._holder, self._token = None, ""
        session = self._create_session()
        session.peer = self.session.peer if self.session else None
        self.session = session
        self._set_rset_state()

    async def auth_PLAIN(self, _: object, args: list[str]) -> AuthResult:
        """AUTH PLAIN (RFC 4616)."""
        return await self._sign_in(await super().auth_PLAIN(_, args))

    async def auth_LOGIN(self, _: object, args: list[str]) -> AuthResult:
        """AUTH LOGIN, which no RFC describes and many clients speak."""
        return await self._sign_in(await super().auth_LOGIN(_, args))

    async def smtp_DATA(self, arg: str | None) -> None:
        """Take a message; 250 only when it is on disk."""
        if await self.check_helo_needed():
            return
        if not self.recipients:
            await self.push("503 5.5.1 need RCPT first")
            return
        if arg:
            await self.push("501 5.5.4 DATA takes no argument")
            return
        if self._reader._buffer:  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
            self.hang_up(b"503 5.5.0 content before the 354 (RFC 2920 section 3.1)")
            self._reader._buffer.clear()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
            return
        dots = self._dots = DotReader(self.lobby.limit_bytes)
        self._whole = self.loop.create_future()
        try:
            await self.push("354 end data with <CR><LF>.<CR><LF>")
            await self._whole
            self._reset_timeout()
            self._is_submitting = True
            reply = await self._taken(dots)
        finally:
            self._is_submitting, self._dots = False, None
            self.lobby.hold(self.site_id, -dots.kept_bytes)
            dots.drop()
            self._set_post_data_state()
        await self.push(reply)
        if self._goodbye:
            self.hang_up(self._goodbye)

    async def _taken(self, dots: DotReader) -> str:
        if dots.too_large:
            return f"552 5.3.4 larger than {self.lobby.limit_bytes} octets"
        if dots.dropped:
            return "452 4.3.1 too much mail at a time; try again later"
        if refusal := await self.refusal():  # a key may be revoked while a message comes
            return refusal
        return await submit(self.lobby.desk, self.site_id, tuple(self.recipients.values()), dots.content())

    async def _sign_in(self, noted: AuthResult) -> AuthResult:
        """Look up the key that `_authenticate` noted; the user name may be anything."""
        if not isinstance(noted.auth_data, LoginPassword):
            return noted  # what was wrong has been said
        token = noted.auth_data.password.decode("ascii", "replace")
        found = await self.lobby.sign_in(self.peer, token)
        if isinstance(found, str):
            return AuthResult(success=False, handled=False, message=found)
        self._holder, self._token = found, token
        self._guard.allow(SESSION_BYTES)
        self._known(self.peer)
        if self._sign_in_end is not None:
            self._sign_in_end.cancel()
        assert self.session is not None
        self.session.authenticated = True
        await self.push("235 2.7.0 authentication succeeded")
        return AuthResult(success=False)  # all is said; for a success aiosmtpd sets a field that it warns of

    def _known(self, peer: str) -> None:
        """Count a peer no longer among those without a key."""
        if self._is_stranger:
            self._is_stranger = False
            self.lobby.strangers.leave(peer)

    # -- what aiosmtpd asks of itself --------------------------------------------------------------------------------

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> Any:
        """Ask for the next line of an AUTH; one beyond all limits ends the connection (RFC 4954 §4)."""
        try:
            return await super().challenge_auth(challenge, encode_to_b64, log_client_response)
        except (
            ValueError
        ):  # by StreamReader.readline; what comes behind its limit would be taken for commands
            self.hang_up(b"500 5.5.6 authentication exchange line is too long")
            return MISSING

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        del mechanism
        return AuthResult(success=False, handled=True, auth_data=auth_data)

    def _set_post_data_state(self) -> None:
        super()._set_post_data_state()
        self.recipients = {}

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Take a path apart: what stands in its brackets, and what follows. aiosmtpd's own takes 0.1 ms, and more than a path."""
        found = _PATH.fullmatch(arg.strip())
        return (found[1] or _NULL_PATH, found[2] or "") if found else (None, None)
