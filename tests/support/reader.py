"""What a reader of mail makes of a message: the stdlib's parser, which knows nothing of how we build."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart


def parsed(wire: bytes) -> EmailMessage:
    """The message; header values are read as what they are (addresses, dates, words)."""
    message = message_from_bytes(wire, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def outline(part: MIMEPart, depth: int = 0) -> list[str]:
    """A message's parts as lines: type, charset, transfer encoding, disposition, file name, Content-ID."""
    words = [
        part.get_content_type(), part.get_content_charset(), part["Content-Transfer-Encoding"], part.get_content_disposition(),
        repr(part.get_filename()) if part.get_filename() else None, part["Content-ID"],
    ]  # fmt: skip
    line = "  " * depth + " ".join(str(word) for word in words if word)
    return [line, *(below for inner in part.iter_parts() for below in outline(inner, depth + 1))]


def defects(message: EmailMessage) -> list[object]:
    """What the parser objects to, in parts and in header fields."""
    return [
        *(defect for part in message.walk() for defect in part.defects),
        *(defect for part in message.walk() for value in part.values() for defect in value.defects),
    ]


def texts(message: EmailMessage) -> dict[str, str]:
    """The text and the HTML, with the line ends of the submission."""
    found = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
    return {kind: part.get_content().replace("\r\n", "\n") for kind, part in found.items() if part}


def files(message: EmailMessage) -> list[tuple[str, str, object, str]]:
    """Files as they were submitted: name, type, octets, Content-ID."""
    return [
        (
            part.get_filename() or "", part.get_content_type(), part.get_payload(decode=True),
            (part["Content-ID"] or "").strip("<>"),
        )
        for part in message.walk() if part.get_content_disposition()
    ]  # fmt: skip
