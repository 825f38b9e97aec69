"""The client's Structs beside the API's: what one says, the other knows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.api import (
    broadcasts,
    contacts,
    imports,
    message_view,
    messages,
    senders,
    status,
    submission,
    suppressions,
    templates,
)
from gateway.client import bodies, results
from gateway.model.why import Reason

ANSWERS = [
    (results.AcceptedDelivery, messages.DeliveryRef),
    (results.Accepted, messages.AcceptedMessage),
    (results.Item, messages.BatchItem),
    (results.Event, message_view.EventView),
    (results.Attempt, message_view.AttemptView),
    (results.Delivery, message_view.DeliveryView),
    (results.Message, message_view.MessageView),
    (results.MessageSummary, message_view.MessageSummary),
    (results.Reason, Reason),
    (results.Why, status.DeliveryWhy),
    (results.Broadcast, broadcasts.BroadcastView),
    (results.BroadcastStats, broadcasts.Stats),
    (results.Contact, contacts.ContactView),
    (results.ContactList, contacts.ListView),
    (results.Import, imports.ImportView),
    (results.RowError, imports.RowErrorView),
    (results.Template, templates.TemplateView),
    (results.Suppression, suppressions.SuppressionView),
]
BODIES = [
    (bodies.Mailbox, senders.Mailbox),
    (bodies.Recipient, submission.RecipientBody),
    (bodies.Attachment, submission.AttachmentBody),
    (bodies.NewMessage, submission.MessageBody),
    (bodies.NewContact, contacts.ContactBody),
    (bodies.NewTemplate, templates.NewTemplate),
    (bodies.NewBroadcast, broadcasts.BroadcastBody),
    (bodies.NewSuppression, suppressions.NewSuppression),
]


def names(struct: type[Any], *, required: bool = False) -> set[str]:
    """The fields of a Struct as they stand in JSON."""
    return {field.encode_name for field in msgspec.structs.fields(struct) if field.required or not required}


@pytest.mark.parametrize(("client", "api"), ANSWERS)
def test_what_a_client_reads_is_what_the_api_says(client: type[Any], api: type[Any]) -> None:
    assert names(client) <= names(api)


@pytest.mark.parametrize(("client", "api"), BODIES)
def test_what_a_client_sends_is_what_the_api_takes(client: type[Any], api: type[Any]) -> None:
    assert names(client) <= names(api)
    assert names(api, required=True) <= names(client, required=True)
