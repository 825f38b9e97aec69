"""The client's Structs beside the API's: what one says, the other knows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.api import (
    broadcast_progress,
    broadcasts,
    contacts,
    domains,
    imports,
    keys,
    lanes,
    lists,
    message_view,
    messages,
    privacy,
    senders,
    sites,
    status,
    submission,
    suppressions,
    templates,
)
from gateway.campaigns import preflight, render
from gateway.client import administration, bodies, results
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
    (results.BroadcastStats, broadcast_progress.Stats),
    (results.Contact, contacts.ContactView),
    (results.ContactList, lists.ListView),
    (results.Import, imports.ImportView),
    (results.RowError, imports.RowErrorView),
    (results.Template, templates.TemplateView),
    (results.Suppression, suppressions.SuppressionView),
    (results.Membership, privacy.MembershipView),
    (results.ContactExport, privacy.Export),
    (results.Sent, privacy.SentView),
    (results.Erasure, privacy.ErasureView),
    (results.SuppressionImport, suppressions.SuppressionImport),
    (results.BroadcastDelivery, broadcast_progress.BroadcastDelivery),
    (results.Estimate, broadcasts.Estimate),
    (results.Check, preflight.Check),
    (results.Rendered, render.Rendered),
    (administration.DnsRecord, domains.Record),
    (administration.Domain, domains.DomainView),
    (administration.Key, keys.KeyView),
    (administration.CreatedKey, keys.CreatedKey),
    (administration.Site, sites.SiteView),
    (administration.SiteHold, sites.HoldView),
    (administration.Lane, lanes.LaneView),
    (administration.LaneLimit, lanes.OverrideView),
    (administration.LaneHold, lanes.HeldView),
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
    (bodies.ContactChange, contacts.ContactChange),
    (bodies.BroadcastChange, broadcasts.BroadcastChange),
]


def names(struct: type[Any], *, required: bool = False) -> set[str]:
    """The fields of a Struct as they stand in JSON."""
    return {field.encode_name for field in msgspec.structs.fields(struct) if field.required or not required}


@pytest.mark.parametrize(("client", "api"), ANSWERS)
def test_what_a_client_reads_is_what_the_api_says(client: type[Any], api: type[Any]) -> None:
    assert names(client) == names(api), "every field that the API has, the client has, too"


@pytest.mark.parametrize(("client", "api"), BODIES)
def test_what_a_client_sends_is_what_the_api_takes(client: type[Any], api: type[Any]) -> None:
    assert names(client) <= names(api)
    assert names(api, required=True) <= names(client, required=True)
