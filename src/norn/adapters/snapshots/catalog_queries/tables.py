"""Tables, views and sequences, and what hangs on them."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from norn.adapters.snapshots.catalog_queries.parts import OURS, in_order, mine

_RELATIONS = sql.SQL("""
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
            ELSE 'table' END,
       format('%I.%I', n.nspname, c.relname),
       concat_ws(E'\\n',
           CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
           CASE WHEN c.reloftype <> 0 THEN 'of ' || format_type(c.reloftype, NULL) END,
           'partition by ' || pg_get_partkeydef(c.oid),
           'inherits ' || (SELECT string_agg(format('%I.%I', pn.nspname, p.relname), ', ' ORDER BY i.inhseqno)
                             FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhparent
                             JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
                            WHERE i.inhrelid = c.oid),
           pg_get_expr(c.relpartbound, c.oid),
           'using ' || (SELECT m.amname FROM pg_am AS m WHERE m.oid = c.relam),
           'with ' || {options},
           'with ' || (SELECT {toast_options} FROM pg_class AS t WHERE t.oid = c.reltoastrelid),
           CASE WHEN c.relrowsecurity THEN 'row security' END,
           CASE WHEN c.relforcerowsecurity THEN 'row security for the owner' END,
           CASE WHEN c.relkind IN ('r', 'p', 'm') AND c.relreplident <> 'd'
                THEN 'replica identity ' || c.relreplident::text END,
           CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'not populated' END,
           (SELECT concat_ws(' ', 'server', quote_ident(s.srvname), {foreign_options})
              FROM pg_foreign_table AS f JOIN pg_foreign_server AS s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END),
       c.oid::int8, NULL,
       json_build_object(
           'kind', c.relkind, 'partition', c.relispartition, 'populated', c.relispopulated,
           'rowSecurity', c.relrowsecurity, 'forced', c.relforcerowsecurity,
           'owner', quote_ident(pg_get_userbyid(c.relowner)),
           'file', CASE WHEN c.relkind IN ('r', 'm') THEN coalesce(pg_relation_filenode(c.oid), 0) END,
           'filled', CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) > 0 END,
           'writes', CASE WHEN c.relkind = 'v' THEN pg_relation_is_updatable(c.oid, true) END,
           'fixed', CASE WHEN c.relkind = 'v' THEN
               (SELECT json_agg(quote_ident(a.attname)) FROM pg_attribute AS a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   AND NOT pg_column_is_updatable(c.oid, a.attnum, true)) END,
           'uses', CASE WHEN c.relkind IN ('r', 'm') THEN
               pg_stat_get_numscans(c.oid) + pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
               + pg_stat_get_tuples_deleted(c.oid)
               + (SELECT coalesce(sum(pg_stat_get_numscans(i.indexrelid)), 0) FROM pg_index AS i
                   WHERE i.indrelid = c.oid) END,
           'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END)::text
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {ours} AND {mine}
""").format(
    options=in_order("c.reloptions"),
    toast_options=in_order("t.reloptions", "toast."),
    foreign_options=in_order("f.ftoptions"),
    ours=OURS,
    mine=mine("pg_class", "c"),
)

# PostgreSQL since 15.20 counts the changes of a column there; pg_dump leaves that out, too.
_COLUMN_OPTIONS: LiteralString = "ARRAY(SELECT o FROM unnest(a.attoptions) AS o WHERE NOT starts_with(o, 'pg_attver='))"

_COLUMNS = sql.SQL("""
SELECT 'column', format('%I.%I.%I', n.nspname, c.relname, a.attname),
       concat_ws(' ',
           format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation::text END,
           CASE WHEN a.attnotnull THEN 'not null' END,
           CASE WHEN k.connoinherit THEN 'no inherit' END,
           CASE WHEN NOT k.convalidated THEN 'not valid' END,
           CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
           CASE a.attgenerated WHEN 's' THEN 'generated stored' WHEN 'v' THEN 'generated virtual'
                ELSE CASE WHEN d.oid IS NOT NULL THEN 'default' END END,
           CASE WHEN d.oid IS NOT NULL THEN pg_get_expr(d.adbin, d.adrelid) END,
           CASE WHEN a.attstorage <> t.typstorage THEN 'storage ' || a.attstorage::text END,
           CASE WHEN a.attcompression <> '' THEN 'compression ' || a.attcompression::text END,
           CASE WHEN a.attstattarget >= 0 THEN 'statistics ' || a.attstattarget END,
           CASE WHEN a.attoptions IS NOT NULL THEN 'with ' || {options} END,
           CASE WHEN a.attfdwoptions IS NOT NULL THEN 'options ' || {foreign_options} END),
       c.oid::int8, a.attnum::int4,
       -- By hand, since a large schema has very many of them.
       concat('{{"type":', to_json(format_type(a.atttypid, a.atttypmod)),
           CASE WHEN a.attnotnull THEN ',"notNull":true' END,
           CASE WHEN a.attidentity <> '' THEN ',"identity":"' || a.attidentity::text || '"' END,
           CASE WHEN a.attgenerated <> '' THEN ',"generated":true' END,
           CASE WHEN a.attcollation <> t.typcollation
                THEN ',"collation":' || to_json(a.attcollation::regcollation::text) END,
           CASE WHEN d.oid IS NOT NULL THEN ',"default":' || to_json(pg_get_expr(d.adbin, d.adrelid)) END,
           '}}')
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = c.oid
  JOIN pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_constraint AS k ON k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey[1] = a.attnum
 WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND {ours} AND {mine}
UNION ALL
-- A restored child of an inherited table has its parents' columns first, wherever they were.
SELECT 'columns', format('%I.%I', n.nspname, c.relname),
       string_agg(quote_ident(a.attname), ', ' ORDER BY CASE WHEN NOT c.relispartition AND i.inhrelid IS NOT NULL
                                                             THEN 0 ELSE a.attnum END, a.attname),
       c.oid::int8, NULL, NULL
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = c.oid
  LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhseqno = 1
 WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND {ours} AND {mine}
 GROUP BY n.nspname, c.relname, c.oid
""").format(
    options=in_order(_COLUMN_OPTIONS),
    foreign_options=in_order("a.attfdwoptions"),
    ours=OURS,
    mine=mine("pg_class", "c"),
)

# A foreign key to or on a partitioned table has more of its kind at the partitions, which follow from it and get new
# names in a restore. That a column is not null is said of the column, since before 18 it is no constraint.
_CONSTRAINTS = sql.SQL("""
SELECT 'constraint', format('%I.%I.%I', n.nspname, c.relname, k.conname), pg_get_constraintdef(k.oid),
       k.oid::int8, NULL,
       json_build_object(
           'type', k.contype, 'table', c.oid::int8, 'valid', k.convalidated, 'deferrable', k.condeferrable,
           'columns', (SELECT coalesce(json_agg(quote_ident(a.attname) ORDER BY u.place), '[]')
                         FROM unnest(k.conkey) WITH ORDINALITY AS u(attnum, place)
                         JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
           'expression', pg_get_expr(k.conbin, k.conrelid),
           'to', nullif(k.confrelid::int8, 0), 'onDelete', k.confdeltype, 'onUpdate', k.confupdtype)::text
  FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND NOT (k.contype = 'f' AND k.conparentid <> 0) AND {ours} AND {of_table}
UNION ALL
SELECT 'constraint', format('%I.%I.%I', n.nspname, t.typname, k.conname), pg_get_constraintdef(k.oid),
       k.oid::int8, NULL,
       json_build_object('type', k.contype, 'domain', t.oid::int8, 'valid', k.convalidated,
                         'expression', pg_get_expr(k.conbin, 0))::text
  FROM pg_constraint AS k JOIN pg_type AS t ON t.oid = k.contypid JOIN pg_namespace AS n ON n.oid = t.typnamespace
 WHERE k.contype = 'c' AND {ours} AND {of_domain}
""").format(ours=OURS, of_table=mine("pg_class", "c"), of_domain=mine("pg_type", "t"))

# One that is not valid is used by nobody, and a dump leaves it out; but on a partitioned table it only means that not
# every partition has its own.
_INDEXES = sql.SQL("""
SELECT 'index', format('%I.%I', n.nspname, x.relname),
       concat_ws(' ', pg_get_indexdef(i.indexrelid),
           'attached to ' || (SELECT format('%I.%I', pn.nspname, p.relname)
                                FROM pg_inherits AS h JOIN pg_class AS p ON p.oid = h.inhparent
                                JOIN pg_namespace AS pn ON pn.oid = p.relnamespace WHERE h.inhrelid = x.oid),
           CASE WHEN NOT i.indisvalid THEN 'not valid' END,
           CASE WHEN i.indisclustered THEN 'clustered' END,
           CASE WHEN i.indisreplident THEN 'replica identity' END),
       x.oid::int8, NULL,
       json_build_object(
           'table', c.oid::int8, 'unique', i.indisunique, 'immediate', i.indimmediate, 'pages', x.relpages,
           'keys', (SELECT json_agg(coalesce(quote_ident(a.attname), pg_get_indexdef(i.indexrelid, u.place::int, true))
                                    ORDER BY u.place)
                      FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u(attnum, place)
                      LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum AND u.attnum > 0
                     WHERE u.place <= i.indnkeyatts),
           'columns', (SELECT coalesce(json_agg(quote_ident(a.attname) ORDER BY u.place), '[]')
                         FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u(attnum, place)
                         JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                        WHERE u.place <= i.indnkeyatts AND u.attnum > 0),
           -- Where `a` and `A` may be the same: by name, of each key.
           'collations', CASE WHEN EXISTS (SELECT FROM pg_collation AS o WHERE NOT o.collisdeterministic) THEN
               (SELECT json_agg(l.collname ORDER BY u.place)
                  FROM unnest(i.indcollation::oid[]) WITH ORDINALITY AS u(id, place)
                  LEFT JOIN pg_collation AS l ON l.oid = u.id AND NOT l.collisdeterministic
                HAVING count(l.oid) > 0) END,
           'expressions', i.indexprs IS NOT NULL, 'where', pg_get_expr(i.indpred, i.indrelid),
           'nullsNotDistinct', coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false))::text
  FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
  JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE (i.indisvalid AND i.indisready OR x.relkind = 'I') AND {ours} AND {mine}
""").format(ours=OURS, mine=mine("pg_class", "c"))

_SEQUENCES: LiteralString = """
SELECT 'sequence', format('%I.%I', n.nspname, c.relname),
       concat_ws(' ', CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
           format('as %s start %s increment %s from %s to %s cache %s', format_type(s.seqtypid, NULL), s.seqstart,
                  s.seqincrement, s.seqmin, s.seqmax, s.seqcache),
           CASE WHEN s.seqcycle THEN 'cycle' END,
           (SELECT format('%s %I.%I.%I', CASE d.deptype WHEN 'i' THEN 'identity of' ELSE 'owned by' END,
                          tn.nspname, t.relname, a.attname)
              FROM pg_depend AS d JOIN pg_class AS t ON t.oid = d.refobjid
              JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
              JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
               AND d.deptype IN ('a', 'i'))),
       c.oid::int8, NULL,
       json_build_object(
           'last', {last},
           'start', s.seqstart, 'increment', s.seqincrement, 'from', s.seqmin, 'to', s.seqmax, 'cycle', s.seqcycle,
           'owner', (SELECT json_build_array(d.refobjid::int8, d.refobjsubid)
                       FROM pg_depend AS d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
                      LIMIT 1))::text
  FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE {ours} AND {mine}
"""

_LAST_VALUE = sql.SQL("""CASE
    WHEN has_sequence_privilege(c.oid, 'USAGE') OR has_sequence_privilege(c.oid, 'SELECT')
    THEN pg_sequence_last_value(c.oid) END""")


def sequences(*, positions: bool) -> sql.Composed:
    """How far each one is costs a lock on it until the transaction ends."""
    last = _LAST_VALUE if positions else sql.SQL("NULL")
    return sql.SQL(_SEQUENCES).format(last=last, ours=OURS, mine=mine("pg_class", "c"))


_ON_TABLES = sql.SQL("""
SELECT 'trigger', format('%I.%I.%I', n.nspname, c.relname, g.tgname),
       concat_ws(' ', pg_get_triggerdef(g.oid), 'enabled', g.tgenabled), g.oid::int8, NULL,
       -- pg_trigger.tgtype: 1 for each row, 2 before, 4 insert
       json_build_object('table', c.oid::int8, 'enabled', g.tgenabled <> 'D',
                         'fills', (g.tgtype & 7) = 7)::text
  FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE NOT g.tgisinternal AND {ours} AND {mine}
UNION ALL
SELECT 'rule', format('%I.%I.%I', n.nspname, c.relname, r.rulename),
       concat_ws(' ', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled), r.oid::int8, NULL,
       json_build_object('table', c.oid::int8)::text
  FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE r.rulename <> '_RETURN' AND {ours} AND {mine}
UNION ALL
SELECT 'policy', format('%I.%I.%I', n.nspname, c.relname, p.polname),
       concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for', p.polcmd,
           'to ' || (SELECT string_agg(w.who, ', ' ORDER BY w.who COLLATE "C")
                       FROM unnest(p.polroles) AS u(id), LATERAL (
                            SELECT CASE u.id WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(u.id)) END
                            ) AS w(who)),
           'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid)),
       p.oid::int8, NULL, json_build_object('table', c.oid::int8)::text
  FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE {ours} AND {mine}
UNION ALL
SELECT 'statistics', format('%I.%I', n.nspname, s.stxname),
       concat_ws(' ', pg_get_statisticsobjdef(s.oid),
           CASE WHEN s.stxstattarget >= 0 THEN 'target ' || s.stxstattarget END,
           'owner', quote_ident(pg_get_userbyid(s.stxowner))), s.oid::int8, NULL, NULL
  FROM pg_statistic_ext AS s JOIN pg_class AS c ON c.oid = s.stxrelid JOIN pg_namespace AS n ON n.oid = s.stxnamespace
 WHERE {ours} AND {mine}
""").format(ours=OURS, mine=mine("pg_class", "c"))

QUERIES = (_RELATIONS, _COLUMNS, _CONSTRAINTS, _INDEXES, _ON_TABLES)

# Ordinary tables, leaves of partitioned ones too, and materialised views: all that has rows of its own.
TABLES = sql.SQL("""
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.oid::int8,
       coalesce(pg_relation_filenode(c.oid), 0)::int8, c.relispopulated
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND {ours} AND {mine}
 ORDER BY n.nspname, c.relname
""").format(ours=OURS, mine=mine("pg_class", "c"))
