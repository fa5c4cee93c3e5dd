"""What is said of objects of every kind: who may do what with them, and comments."""

from __future__ import annotations

from psycopg import sql

from norn.adapters.snapshots.catalog_queries.parts import FIRST_OID, OURS, acl, mine

# The schema `public` as a new database has it gets no entry, since a dump does not bring it back once it is dropped.
_PRIVILEGES = sql.SQL("""
SELECT 'privileges', o.name, concat_ws('; ', 'owner ' || quote_ident(pg_get_userbyid(o.owner)), o.acl),
       o.oid::int8, NULL, NULL
  FROM (
    SELECT 'schema ' || quote_ident(n.nspname), n.nspowner, {schema_acl}, n.oid
      FROM pg_namespace AS n WHERE {ours} AND {schema_mine}
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view '
                WHEN 'f' THEN 'foreign table ' ELSE 'table ' END || format('%I.%I', n.nspname, c.relname),
           c.relowner, {relation_acl}, c.oid
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND {ours} AND {relation_mine}
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure ' WHEN 'a' THEN 'aggregate ' ELSE 'function ' END
               || p.oid::regprocedure::text, p.proowner, {function_acl}, p.oid
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {ours} AND {function_mine}
    UNION ALL
    SELECT CASE t.typtype WHEN 'e' THEN 'enum ' WHEN 'd' THEN 'domain ' ELSE 'type ' END
               || format('%I.%I', n.nspname, t.typname), t.typowner, {type_acl}, t.oid
      FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace LEFT JOIN pg_class AS c ON c.oid = t.typrelid
     WHERE {ours} AND {type_mine}
       AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c'
            OR t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type AS a WHERE a.typarray = t.oid))
    UNION ALL
    SELECT 'foreign data wrapper ' || quote_ident(w.fdwname), w.fdwowner, {wrapper_acl}, w.oid
      FROM pg_foreign_data_wrapper AS w WHERE {wrapper_mine}
    UNION ALL
    SELECT 'foreign server ' || quote_ident(s.srvname), s.srvowner, {server_acl}, s.oid
      FROM pg_foreign_server AS s WHERE {server_mine}
  ) AS o(name, owner, acl, oid)
 WHERE NOT (o.name = 'schema public' AND pg_get_userbyid(o.owner) = 'pg_database_owner'
            AND o.acl = 'PUBLIC=USAGE; pg_database_owner=CREATE,USAGE')
UNION ALL
SELECT 'privileges', 'column ' || format('%I.%I.%I', n.nspname, c.relname, a.attname), {column_acl},
       c.oid::int8, a.attnum::int4, NULL
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE a.attacl <> '{{}}' AND NOT a.attisdropped AND {ours} AND {relation_mine}
UNION ALL
SELECT 'default privileges',
       concat_ws(' ', 'of', quote_ident(pg_get_userbyid(d.defaclrole)), 'in ' || quote_ident(n.nspname),
           CASE d.defaclobjtype WHEN 'r' THEN 'on tables' WHEN 'S' THEN 'on sequences' WHEN 'f' THEN 'on functions'
                WHEN 'T' THEN 'on types' WHEN 'n' THEN 'on schemas' WHEN 'L' THEN 'on large objects'
                ELSE 'on ' || d.defaclobjtype::text END),
       {default_acl}, d.oid::int8, NULL, NULL
  FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
UNION ALL
SELECT 'large objects', '', string_agg(format('%s of %I (%s)', l.number, pg_get_userbyid(l.owner), l.acl), ', '
           ORDER BY pg_get_userbyid(l.owner), l.acl COLLATE "C"), NULL, NULL, NULL
  FROM (SELECT sum(m.number) AS number, m.lomowner AS owner, {object_acl} AS acl
          FROM (SELECT count(*) AS number, b.lomowner, b.lomacl
                  FROM pg_largeobject_metadata AS b GROUP BY b.lomowner, b.lomacl) AS m GROUP BY 2, 3) AS l
HAVING count(*) > 0
""").format(
    ours=OURS,
    schema_acl=acl("n.nspacl", "'n'", "n.nspowner"),
    schema_mine=mine("pg_namespace", "n"),
    relation_acl=acl("c.relacl", "CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\"", "c.relowner"),
    relation_mine=mine("pg_class", "c"),
    function_acl=acl("p.proacl", "'f'", "p.proowner"),
    function_mine=mine("pg_proc", "p"),
    type_acl=acl("t.typacl", "'T'", "t.typowner"),
    type_mine=mine("pg_type", "t"),
    wrapper_acl=acl("w.fdwacl", "'F'", "w.fdwowner"),
    wrapper_mine=mine("pg_foreign_data_wrapper", "w"),
    server_acl=acl("s.srvacl", "'S'", "s.srvowner"),
    server_mine=mine("pg_foreign_server", "s"),
    column_acl=acl("a.attacl", "'c'", "c.relowner"),
    default_acl=acl("d.defaclacl", "'r'", "d.defaclrole"),
    object_acl=acl("m.lomacl", "'L'", "m.lomowner"),
)

# Those of extensions come from their own files, and those of large objects are data.
_COMMENTS = sql.SQL("""
SELECT 'comment', concat_ws(' ', i.type, i.identity), d.description, NULL, NULL, NULL
  FROM pg_description AS d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
 WHERE d.classoid NOT IN ('pg_extension'::regclass, 'pg_largeobject'::regclass)
   AND (d.objoid >= {first} OR d.objoid = (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = 'public'))
   AND NOT (i.type = 'schema' AND i.identity = 'public' AND d.description = 'standard public schema')
   AND NOT (i.schema IS NOT NULL AND starts_with(i.schema, 'pg_'))
   AND NOT EXISTS (SELECT FROM pg_depend AS e
                    WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')
""").format(first=FIRST_OID)

QUERIES = (_PRIVILEGES, _COMMENTS)
