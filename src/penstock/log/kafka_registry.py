"""A Confluent-compatible schema registry: ids of schemas, and schemas by their ids."""

from __future__ import annotations

import json
from typing import Any

import httpx

from penstock.errors import Malformed, Problem, Unreachable
from penstock.limits import KAFKA_SECONDS_MAX

CONTENT = "application/vnd.schemaregistry.v1+json"
WORDS_MAX = 300


class Registry:
    """Asks once for each schema and each id. Raises ``Unreachable``, and ``Problem`` where the
    registry refuses."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"), timeout=KAFKA_SECONDS_MAX / 2, headers={"accept": CONTENT}
        )

    def id_of(self, subject: str, schema: Any) -> int:
        """The id of a schema under a subject; it is registered where it is not yet."""
        body = {"schemaType": "AVRO", "schema": json.dumps(schema)}
        path, what = f"/subjects/{subject}/versions", f"the schema of {subject}"
        found = self._ask("POST", path, what, json=body)
        try:
            return int(found["id"])
        except (KeyError, TypeError, ValueError):
            raise _senseless(what) from None

    def schema_of(self, id_: int) -> Any:
        """The schema of an id. Raises ``Malformed`` where nobody knows the id."""
        what = f"schema {id_}"
        found = self._ask("GET", f"/schemas/ids/{id_}", what, unknown_is_malformed=True)
        try:
            kind, schema = found.get("schemaType", "AVRO"), found["schema"]
            return json.loads(schema if kind == "AVRO" else "")
        except (AttributeError, KeyError):
            raise _senseless(what) from None
        except (TypeError, ValueError):
            raise Malformed(f"{what} is no Avro schema") from None

    def _ask(
        self, method: str, path: str, what: str, *, unknown_is_malformed: bool = False, **more: Any
    ) -> Any:
        try:
            reply = self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise Unreachable(f"the schema registry does not answer {what}: {error}") from None
        if reply.status_code == 404 and unknown_is_malformed:
            raise Malformed(f"the schema registry does not know {what}")
        if reply.status_code >= 500 or reply.status_code == 429:
            raise Unreachable(f"the schema registry does not answer {what}: {reply.status_code}")
        if not reply.is_success:
            raise Problem(
                "registry_refused",
                f"The schema registry refuses {what}: {reply.status_code} "
                f"{reply.text[:WORDS_MAX]}.",
                "Look at the subject's compatibility, and at `registry` in [kafka].",
            )
        try:
            return reply.json()
        except ValueError:
            raise _senseless(what) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()


def _senseless(what: str) -> Unreachable:
    """For an answer of something that stands where the registry should: a proxy, a login page."""
    return Unreachable(f"what answers {what} is no schema registry")
