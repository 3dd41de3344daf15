"""Views of a flow's documents with a column per field: what an analyst reads with plain SQL.

``<service>_<kind>`` has the key, the label, and each top-level field of the state's Struct under
its own name. They are made of the declaration and may be made again at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
from msgspec import inspect
from psycopg import sql

from penstock.errors import Conflict
from penstock.flow import Flow

NAME_BYTES_MAX = 63  # PostgreSQL cuts longer names
_PLAIN: dict[type, str] = {
    inspect.BoolType: "boolean",
    inspect.IntType: "bigint",
    inspect.FloatType: "double precision",
    inspect.DecimalType: "numeric",
    inspect.StrType: "text",
    inspect.DateTimeType: "timestamptz",
    inspect.DateType: "date",
    inspect.UUIDType: "uuid",
}
_OWN_COLUMNS = ("namespace", "key", "label", "txn")
_GRANTS = """
SELECT r.rolname, a.privilege_type FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE c.oid = %s::regclass AND a.grantee <> c.relowner"""


def states_of(flow: Flow) -> Iterator[tuple[str, str, type]]:
    """Service, kind and Struct of every document that the flow keeps."""
    for service in flow.services:
        for kind, type_ in service.states.items():
            yield service.name, kind, type_
    for kind, type_ in flow.door_states.items():
        yield flow.door, kind, type_


def view_name(service: str, kind: str) -> str:
    """``<service>_<kind>``, fit to be written without quotes."""
    return re.sub(r"\W", "_", f"{service}_{kind}".lower())[:NAME_BYTES_MAX]


def view_of(service: str, kind: str, type_: Any) -> sql.Composed:
    """The query of a view. Its columns come in the order in which the Struct declares them, so
    that a field added at the end is a column added at the end."""
    own = [
        sql.SQL("s.namespace"), sql.SQL("d.key"), sql.SQL("d.label"), sql.SQL("d.txn"),
    ]  # fmt: skip
    columns = [*own, *_columns(type_)]
    return sql.SQL(
        "SELECT {columns} FROM documents d JOIN scopes s ON s.id = d.scope"
        " CROSS JOIN LATERAL as_json(d.body) AS j(body)"
        " WHERE s.service = {service} AND d.kind = {kind} AND d.body IS NOT NULL"
    ).format(
        columns=sql.SQL(", ").join(columns), service=sql.Literal(service),
        kind=sql.Literal(kind),
    )


def _columns(type_: Any) -> Iterator[sql.Composed]:
    about = inspect.type_info(type_)
    if not isinstance(about, inspect.StructType):
        yield sql.SQL("j.body AS {}").format(sql.Identifier("body"))
        return
    for place, field in enumerate(about.fields):
        name = f"{field.name}_" if field.name in _OWN_COLUMNS else field.name
        at: Any = place if about.array_like else field.encode_name
        yield sql.SQL("{} AS {}").format(_cell(at, field), sql.Identifier(name))


def _cell(at: str | int, field: inspect.Field) -> sql.Composed:
    """A field's value in the type that an analyst wants. Milliseconds since 1970, which are named
    ``at`` or ``*_at``, become a time."""
    kinds = [field.type]
    if isinstance(field.type, inspect.UnionType):
        kinds = [t for t in field.type.types if not isinstance(t, inspect.NoneType)]
    kind = kinds[0] if len(kinds) == 1 else None
    of = sql.SQL("j.body -> {}").format(sql.Literal(at))
    plain = sql.SQL("j.body ->> {}").format(sql.Literal(at))
    if isinstance(kind, inspect.IntType) and re.fullmatch(r"(\w+_)?at", field.name):
        return sql.SQL("as_time(nullif(({})::bigint, 0))").format(plain)  # 0: it was never
    if isinstance(kind, inspect.EnumType | inspect.LiteralType):
        return sql.SQL("({})").format(plain)
    wanted = _PLAIN.get(type(kind))
    if wanted is None:
        return sql.SQL("({})").format(of)
    return sql.SQL("({})::{}").format(plain, sql.SQL(wanted))


def make_views(connection: psycopg.Connection[Any], flow: Flow) -> list[dict[str, Any]]:
    """Make the views of a flow, each anew where its columns changed; returns their names and
    columns.

    A view that had to be dropped is given its grants again.
    """
    made = []
    for service, kind, type_ in states_of(flow):
        name = view_name(service, kind)
        with connection.transaction():
            _make(connection, sql.Identifier(name), view_of(service, kind, type_))
        found = connection.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(name)))
        columns = [column.name for column in found.description or ()]
        made.append({"view": name, "service": service, "kind": kind, "columns": columns})
    return made


def _make(connection: psycopg.Connection[Any], name: sql.Identifier, query: sql.Composed) -> None:
    create = sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(name, query)
    try:
        with connection.transaction():
            connection.execute(create)
    except psycopg.Error as error:
        if error.sqlstate != "42P16":  # columns were taken away, or changed their type
            raise
        grants = connection.execute(_GRANTS, [name.as_string(connection)]).fetchall()
        _drop(connection, name)
        connection.execute(create)
        for role, right in grants:
            to = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
            connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(right), name, to))


def _drop(connection: psycopg.Connection[Any], name: sql.Identifier) -> None:
    try:
        connection.execute(sql.SQL("DROP VIEW {}").format(name))
    except psycopg.errors.DependentObjectsStillExist as error:
        raise Conflict(
            "view_in_use", f"Other views are built on {name.as_string(connection)}: {error}",
            "Drop them, run `penstock db views`, and make them again.",
        ) from error

