"""What every answer of the API must keep, whatever was asked."""

from __future__ import annotations

import json
from typing import Any

from schemathesis import Case, CheckContext, Response
from schemathesis.specs.openapi import checks

from penstock.contracts.strict import CODES
from tests.fuzz.described import is_positive

# What is wrong with the words of a request, and not with the world they meet.
ILL_FORMED = CODES | {
    "body_missing", "body_not_expected", "client_invalid", "idempotency_key_invalid",
    "idempotency_key_missing", "idempotency_key_too_long", "not_json_type", "parameter_twice",
    "query_invalid", "unknown_parameter",
}  # fmt: skip
# Bounds of every entrance that a JSON Schema has no words for.
BEYOND_WORDS = {"number_too_long", "too_deep", "too_large"}
NAMELESS = {"body_missing", "body_not_expected", "query_invalid", "not_json", "not_utf8",
            "too_deep", "too_large", "lone_surrogate"}  # fmt: skip
PROBLEM_BYTES_MAX = 8_000
REFUSED_TOO = {413, 421, 431}  # refusals before the words are looked at: no data was accepted
_BUILT_IN = (
    checks.content_type_conformance, checks.response_schema_conformance,
    checks.response_headers_conformance, checks.missing_required_header,
    checks.unsupported_method, checks.allow_header_conformance,
    checks.ensure_resource_availability, checks.negative_data_rejection,
)  # fmt: skip


def judge(case: Case, response: Response, **given: Any) -> None:
    """Hold an answer against the document and against what holds everywhere."""
    ours = (documented, explained, taken_as_described)
    built_in = list(_BUILT_IN)
    if response.status_code in REFUSED_TOO:
        built_in.remove(checks.negative_data_rejection)
    case.validate_response(response, checks=[*built_in, *ours], **given)


def documented(ctx: CheckContext, response: Response, case: Case) -> None:
    """The status is one that the operation names; a 5xx is none but those it names."""
    named = {code for code in case.operation.responses.status_codes if code != "default"}
    assert str(response.status_code) in named, f"{response.status_code} is not documented"


def explained(ctx: CheckContext, response: Response, case: Case) -> None:
    """A refusal is a problem document that says what is wrong, where, and repeats no attack."""
    if response.status_code < 400 or _is_readiness(case, response):
        return
    said = problem_of(response)
    assert said["status"] == response.status_code
    assert said["type"] == f"urn:penstock:problem:{said['code']}"
    assert said["title"], "no title"
    assert said["detail"], "no detail"
    assert len(response.content) < PROBLEM_BYTES_MAX, "the answer repeats the request"
    if said["code"] in ILL_FORMED - NAMELESS and not _is_of_the_whole(said):
        assert said.get("field"), f"{said['code']} names no field"
        assert said["errors"][0]["field"] == said["field"]


def _is_readiness(case: Case, response: Response) -> bool:
    return case.operation.path in ("/readyz", "/health/ready") and response.status_code == 503


def _is_of_the_whole(said: dict[str, Any]) -> bool:
    """A body that is no object at all has no field to name."""
    return said["code"] == "invalid_value" and said["detail"].startswith("Expected `object`")


def problem_of(response: Response) -> dict[str, Any]:
    """The problem document of an answer."""
    assert response.headers["content-type"] == ["application/problem+json"], response.headers
    said: dict[str, Any] = json.loads(response.content)
    return said


def taken_as_described(ctx: CheckContext, response: Response, case: Case) -> None:
    """What the document allows is never called ill-formed: it says all that the door says."""
    if not is_positive(case) or response.status_code < 400 or _is_readiness(case, response):
        return
    said = problem_of(response)
    ill = said["code"] in ILL_FORMED - BEYOND_WORDS
    assert not ill, f"valid by the document, yet: {said['detail']}"
