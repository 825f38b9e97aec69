"""The control API as an upstream app uses it: HTTP and nothing else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Self

import httpx

_TIMEOUT_S: Final = 30.0
_IMPORT_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.2


class ApiRefused(RuntimeError):
    """An answer that is not 2xx; the message is what the API said."""


class Api:
    """One key's view of the API."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S, trust_env=False
        )

    def get(self, path: str, **query: object) -> Any:
        """GET, decoded. Raises ApiRefused."""
        return self._answer(self._client.get(path, params={k: str(v) for k, v in query.items()}))

    def post(self, path: str, body: object = None) -> Any:
        """POST of JSON, decoded. Raises ApiRefused."""
        return self._answer(self._client.post(path, json={} if body is None else body))

    def upload(self, path: str, name: str, content: bytes, **fields: str) -> Any:
        """POST of a file as a multipart form, decoded. Raises ApiRefused."""
        files = {"file": (name, content, "text/csv")}
        return self._answer(self._client.post(path, files=files, data=fields))

    def import_contacts(self, list_name: str, content: bytes) -> dict[str, Any]:
        """Import a CSV file into a new list and wait for its end; the import's record. Raises ApiRefused."""
        record: dict[str, Any] = self.upload("/v1/imports", "contacts.csv", content, list=list_name)
        deadline = time.monotonic() + _IMPORT_TIMEOUT_S
        while record["status"] == "running":
            if time.monotonic() > deadline:
                raise ApiRefused(f"the import has not ended after {_IMPORT_TIMEOUT_S:g} s: {record}")
            time.sleep(_POLL_S)
            record = self.get(f"/v1/imports/{record['id']}")
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_success:
            return response.json() if response.content else None
        try:
            problem = response.json()
            said = f"{problem.get('title', '')}: {problem.get('detail', '')} {problem.get('errors', '')}"
        except ValueError:
            said = response.text[:300]
        raise ApiRefused(
            f"{response.request.method} {response.request.url.path}: {response.status_code} {said}"
        )
