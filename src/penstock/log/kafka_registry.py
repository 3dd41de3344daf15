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
        path = f"/subjects/{subject}/versions"
        found = self._ask("POST", path, f"the schema of {subject}", json=body)
        return int(found["id"])

    def schema_of(self, id_: int) -> Any:
        """The schema of an id. Raises ``Malformed`` where nobody knows the id."""
        found = self._ask("GET", f"/schemas/ids/{id_}", f"schema {id_}", unknown_is_malformed=True)
        if found.get("schemaType", "AVRO") != "AVRO":
            raise Malformed(f"schema {id_} is no Avro schema")
        return json.loads(found["schema"])

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
        return reply.json()

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()
