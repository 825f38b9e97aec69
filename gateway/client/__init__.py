"""A typed client of the control API, for Python apps: `Client` for code that waits, `AsyncClient` for coroutines.

Owns nothing of the gateway and imports nothing of it: what it knows is the API (docs/client.md). It needs httpx, which the extra `client`
brings. What fails for a moment is repeated, and every POST has an idempotency key, so that a repetition is never a second message.
"""

from gateway.client.aio import AsyncClient
from gateway.client.bodies import (
    Attachment,
    Mailbox,
    NewBroadcast,
    NewContact,
    NewMessage,
    NewSuppression,
    NewTemplate,
    Recipient,
)
from gateway.client.errors import (
    CampaignsDisabled,
    ClientError,
    Conflict,
    ConsentMissing,
    DomainUnverified,
    FieldError,
    Forbidden,
    Garbled,
    IdempotencyMismatch,
    Invalid,
    InvalidTransition,
    NotFound,
    OutsideWindow,
    Problem,
    ProblemDetails,
    QuotaContacts,
    QuotaMessages,
    RateLimited,
    ServerFault,
    Suppressed,
    Unauthorized,
    Unavailable,
    Unreachable,
    WhatsappWindowClosed,
)
from gateway.client.exchange import NEVER, Retry
from gateway.client.sync import Client

__all__ = [
    "NEVER",
    "AsyncClient",
    "Attachment",
    "CampaignsDisabled",
    "Client",
    "ClientError",
    "Conflict",
    "ConsentMissing",
    "DomainUnverified",
    "FieldError",
    "Forbidden",
    "Garbled",
    "IdempotencyMismatch",
    "Invalid",
    "InvalidTransition",
    "Mailbox",
    "NewBroadcast",
    "NewContact",
    "NewMessage",
    "NewSuppression",
    "NewTemplate",
    "NotFound",
    "OutsideWindow",
    "Problem",
    "ProblemDetails",
    "QuotaContacts",
    "QuotaMessages",
    "RateLimited",
    "Recipient",
    "Retry",
    "ServerFault",
    "Suppressed",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WhatsappWindowClosed",
]
