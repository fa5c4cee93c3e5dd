"""Which tables hold an app's data, and by what their rows can be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from norn.adapters.snapshots.reading import Reader

# Ordinary tables, leaves of partitioned ones too, but for those of the system, of a session, and of extensions.
_TABLES = sql.SQL("""
SELECT n.nspname, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid::int8,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::int8, c.relpages,
       (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
                   a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '')
               ORDER BY a.attnum), '[]')
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT coalesce(pg_catalog.json_agg(k.columns
                   ORDER BY NOT i.indisprimary, i.indnkeyatts, i.indexrelid), '[]')
          FROM pg_catalog.pg_index AS i, LATERAL (
               SELECT pg_catalog.json_agg(a.attname ORDER BY u.place) AS columns,
                      pg_catalog.bool_and(a.attnotnull) AS filled
                 FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS u(attnum, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                WHERE u.place <= i.indnkeyatts) AS k
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
           AND i.indexprs IS NULL AND k.filled)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')
   AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
""")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one database, as the catalog has it."""

    schema: str
    name: str
    label: str
    """Qualified and quoted: `public."Order"`."""
    oid: int
    file: int
    """Its relfilenode."""
    pages: int
    """Its size when it was last analysed, in blocks."""
    types: Mapping[str, str]
    """Every column, with its type as SQL has it."""
    content: tuple[str, ...]
    """The columns that are not generated from others, in their order."""
    keys: tuple[tuple[str, ...], ...]
    """Columns that tell rows apart and are never null: the primary key first, then unique indexes, short ones first."""

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def key_shared_with(self, other: Table) -> tuple[str, ...] | None:
        """The first key that tells the other one's rows apart too; None where there is none."""
        return next((key for key in self.keys if key in other.keys and self._alike(other, key)), None)

    def same_content(self, other: Table) -> bool:
        return set(self.content) == set(other.content) and self._alike(other, self.content)

    def _alike(self, other: Table, columns: tuple[str, ...]) -> bool:
        return all(self.types[column] == other.types.get(column) for column in columns)


async def tables_of(reader: Reader) -> dict[tuple[str, str], Table]:
    """The tables of a database by schema and name. Raises psycopg.Error."""
    found = {}
    for schema, name, label, oid, file, pages, columns, keys in await reader.rows(_TABLES):
        found[schema, name] = Table(
            schema,
            name,
            label,
            oid,
            file,
            pages,
            {column: type_name for column, type_name, _generated in columns},
            tuple(column for column, _type_name, generated in columns if not generated),
            tuple(tuple(key) for key in keys),
        )
    return found
