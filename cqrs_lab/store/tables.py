"""The tables of a store: made when they are missing, refused when they do not fit.

Owns the layout, and the number that tells it from that of other versions.
"""

from __future__ import annotations

from collections.abc import Mapping

from cqrs_lab.errors import DeclarationError, NotAStore, StoreFormatError
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import ENVELOPE, Category
from cqrs_lab.store.database import Database
from cqrs_lab.store.defaults import fill_defaults

FORMAT = 2
_DEAD_LETTERS = """CREATE TABLE IF NOT EXISTS dead_letters (model VARCHAR, position BIGINT, type VARCHAR NOT NULL,
    error VARCHAR NOT NULL, attempts INTEGER NOT NULL, "at" TIMESTAMP NOT NULL, PRIMARY KEY (model, position))"""
_READ_MODELS = """CREATE TABLE IF NOT EXISTS read_models (model VARCHAR PRIMARY KEY, key VARCHAR[] NOT NULL,
    sql VARCHAR NOT NULL)"""


class Tables:
    """The tables of one store, for one set of categories.

    Args:
        database: an open database.
        categories: by name, those that the domain declares.
    """

    def __init__(self, database: Database, categories: Mapping[str, Category]) -> None:
        self._database, self._categories = database, categories

    def stored(self, suffix: str) -> dict[str, dict[str, str]]:
        """Category -> field -> type of its column, of the tables with that suffix."""
        rows = self._database.execute(
            """SELECT category, column_name, data_type FROM categories
               JOIN duckdb_columns() ON table_name = category || '_' || ? AND schema_name = 'main'
                    AND database_name = current_database()
               WHERE NOT list_contains(?, column_name) ORDER BY category, column_index""",
            [suffix, list(ENVELOPE)],
        )
        tables: dict[str, dict[str, str]] = {}
        for category, column, kind in rows:
            tables.setdefault(category, {})[column] = kind
        return tables

    def prepare(self) -> None:
        """Make what is missing, and refuse what does not fit."""
        tables = {
            name
            for (name,) in self._database.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' "
                "AND database_name = current_database()"
            )
        }
        if "store" not in tables:
            if tables:
                raise NotAStore(
                    f"{self._database.path} is a DuckDB database with other tables ({', '.join(sorted(tables)[:5])}) "
                    "and no cqrs_lab store; it was left as it is. Choose another path"
                )
            if self._database.read_only:
                raise NotAStore(f"{self._database.path} is an empty database; open it for writing once to make a store")
            with self._database.transaction():
                self._create()
        found: dict[str, str] = dict(self._database.execute("SELECT name, value FROM store"))
        if found.get("format") != str(FORMAT):
            raise StoreFormatError(
                f"{self._database.path} has store format {found.get('format')}; this version reads {FORMAT}. "
                "Open it with the version of cqrs_lab that wrote it"
            )
        for name, sql in {"dead_letters": _DEAD_LETTERS, "read_models": _READ_MODELS}.items():
            if name not in tables and not self._database.read_only:  # nor has it a store of an earlier version
                self._database.execute(sql)
        self._fit_columns()

    def _create(self) -> None:
        for sql in (
            "CREATE TABLE store (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
            f"INSERT INTO store VALUES ('format', '{FORMAT}')",
            "CREATE TABLE categories (category VARCHAR PRIMARY KEY, key VARCHAR NOT NULL)",
            """CREATE TABLE streams (stream VARCHAR PRIMARY KEY, stream_no INTEGER NOT NULL,
                                     category VARCHAR NOT NULL, id VARCHAR NOT NULL)""",
            """CREATE TABLE commands (command_id VARCHAR PRIMARY KEY, type VARCHAR NOT NULL, digest VARCHAR NOT NULL,
                                      stream_no INTEGER, correlation_id VARCHAR, causation_id VARCHAR,
                                      first_position BIGINT, last_position BIGINT)""",
            """CREATE TABLE snapshots (stream_no INTEGER PRIMARY KEY, version INTEGER NOT NULL,
                                       position BIGINT NOT NULL, code VARCHAR NOT NULL, state JSON NOT NULL)""",
            """CREATE TABLE servings (model VARCHAR, served_as VARCHAR, mode VARCHAR NOT NULL,
                                      fingerprint VARCHAR NOT NULL, position BIGINT NOT NULL,
                                      PRIMARY KEY (model, served_as))""",
            'CREATE SCHEMA "view"',
            "CREATE SCHEMA materialized",
            "CREATE SCHEMA projection",
        ):
            self._database.execute(sql)

    def _fit_columns(self) -> None:
        stored: dict[str, str] = dict(self._database.execute("SELECT category, key FROM categories"))
        events, personal = (self.stored(suffix) if stored else {} for suffix in ("events", "personal"))
        missing: list[str] = []
        for category in self._categories.values():
            key = stored.get(category.name)
            if key is None:
                missing.append(f"INSERT INTO categories VALUES ('{category.name}', '{category.key}')")
                missing += self._make_tables(category)
            elif key != category.key:
                raise DeclarationError(
                    f"category {category.name!r} is stored with the key {key!r}, not {category.key!r}"
                )
            else:
                missing += self._add_columns(category, events.get(category.name, {}), personal.get(category.name, {}))
        if missing:
            if self._database.read_only:
                raise StoreFormatError(
                    f"{self._database.path} lacks tables or columns that the domain declares; open it for writing once"
                )
            with self._database.transaction():
                for sql in missing:
                    self._database.execute(sql)
        for category in self._categories.values():
            if category.name in events:
                there = events[category.name].keys() | personal.get(category.name, {}).keys()
                fill_defaults(self._database, category, new=frozenset(category.columns.keys() - there))

    def _make_tables(self, category: Category) -> list[str]:
        table = quote(category.table)
        columns = [f"{name} {kind}" for name, kind in ENVELOPE.items()]
        columns += [
            f"{quote(name)} {kind}{' NOT NULL' if name == category.key else ''}"
            for name, kind in category.columns.items()
            if name not in category.personal
        ]
        statements = [
            f"CREATE TABLE {table} ({', '.join(columns)}, UNIQUE (stream_no, version))",
            # The UNIQUE key does not serve a lookup by stream: 5.7 ms -> 0.97 ms at 5 M scattered events.
            f"CREATE INDEX {quote(f'{category.table}_stream_no')} ON {table} (stream_no)",
        ]
        return statements + self._make_personal(category)

    def _make_personal(self, category: Category) -> list[str]:
        columns = "".join(f", {quote(name)} {category.columns[name]}" for name in sorted(category.personal))
        table = quote(category.personal_table)
        return [f"CREATE TABLE {table} (position BIGINT PRIMARY KEY{columns})"] if columns else []

    def _add_columns(self, category: Category, there: Mapping[str, str], beside: Mapping[str, str]) -> list[str]:
        """Statements that add the columns of new fields, refusing a field that is stored otherwise."""
        missing = [] if beside else self._make_personal(category)
        for name, kind in category.columns.items():
            personal = name in category.personal
            table, here, other = (
                (category.personal_table, beside, there) if personal else (category.table, there, beside)
            )
            if name not in here and name in other:
                raise DeclarationError(
                    f"{category.name}.{name} is stored {'in' if personal else 'beside'} the log and declared as "
                    f"{'personal' if personal else 'not personal'}; give the field a new name"
                )
            if name not in here and (beside or not personal):
                missing.append(f"ALTER TABLE {quote(table)} ADD COLUMN {quote(name)} {kind}")
            elif name in here and self._canonical(kind) != here[name]:
                raise DeclarationError(
                    f"{table}.{name} is stored as {here[name]} and declared as {kind}; "
                    "a field keeps its type. Give the new meaning a new name"
                )
        return missing

    def _canonical(self, kind: str) -> str:
        """The type as DuckDB spells it."""
        return str(self._database.execute(f"SELECT typeof(CAST(NULL AS {kind}))")[0][0])
