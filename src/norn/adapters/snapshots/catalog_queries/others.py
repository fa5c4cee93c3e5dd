"""What is no part of a table: schemas, functions, types, operators, and what leads elsewhere."""

from __future__ import annotations

from psycopg import sql

from norn.adapters.snapshots.catalog_queries.parts import FIRST_OID, OURS, in_order, mine

_SCHEMAS = sql.SQL("""
SELECT 'schema', quote_ident(n.nspname), '', n.oid::int8, NULL, NULL
  FROM pg_namespace AS n
 WHERE {ours} AND {mine} AND n.nspname <> 'public'  -- a dump neither makes nor drops that one
UNION ALL
SELECT 'extension', quote_ident(x.extname), format('version %s in %I', x.extversion, n.nspname), x.oid::int8, NULL, NULL
  FROM pg_extension AS x JOIN pg_namespace AS n ON n.oid = x.extnamespace
 WHERE x.extname <> 'plpgsql'
""").format(ours=OURS, mine=mine("pg_namespace", "n"))

_FUNCTIONS = sql.SQL("""
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
       p.oid::regprocedure::text,
       CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE concat_ws(' ',
           pg_get_function_arguments(p.oid), 'returns', pg_get_function_result(p.oid), 'parallel', p.proparallel,
           (SELECT concat_ws(' ', 'kind', g.aggkind, g.aggnumdirectargs,
                       'functions', g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn,
                       g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn,
                       'final', g.aggfinalextra, g.aggmfinalextra, g.aggfinalmodify, g.aggmfinalmodify,
                       'sort', g.aggsortop::regoperator,
                       'state', format_type(g.aggtranstype, NULL), g.aggtransspace, quote_nullable(g.agginitval),
                       'moving', g.aggmtranstype::regtype, g.aggmtransspace, quote_nullable(g.aggminitval))
              FROM pg_aggregate AS g WHERE g.aggfnoid = p.oid)) END,
       p.oid::int8, NULL,
       json_build_object('name', format('%I.%I', n.nspname, p.proname),
                         'returns', format_type(p.prorettype, NULL))::text
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE {ours} AND {mine}
""").format(ours=OURS, mine=mine("pg_proc", "p"))

# Without those that come with another one: of arrays, of multiranges, of the rows of tables.
_TYPES = sql.SQL("""
SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' ELSE 'type' END,
       format('%I.%I', n.nspname, t.typname),
       CASE t.typtype
           WHEN 'e' THEN (SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
                            FROM pg_enum AS l WHERE l.enumtypid = t.oid)
           WHEN 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod),
                             CASE WHEN t.typcollation <> b.typcollation
                                  THEN 'collate ' || t.typcollation::regcollation::text END,
                             CASE WHEN t.typnotnull THEN 'not null' END,
                             'default ' || pg_get_expr(t.typdefaultbin, 0))
           WHEN 'c' THEN (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                                     CASE WHEN a.attcollation <> o.typcollation
                                          THEN 'collate ' || a.attcollation::regcollation::text END),
                                     ', ' ORDER BY a.attnum)
                            FROM pg_attribute AS a JOIN pg_type AS o ON o.oid = a.atttypid
                           WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
           WHEN 'r' THEN (SELECT concat_ws(' ', 'range of', format_type(r.rngsubtype, NULL), r.rngcanonical,
                                     r.rngsubdiff, r.rngcollation::regcollation, q.opcname, r.rngmultitypid::regtype)
                            FROM pg_range AS r JOIN pg_opclass AS q ON q.oid = r.rngsubopc WHERE r.rngtypid = t.oid)
           ELSE concat_ws(' ', t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze,
                    t.typlen, t.typbyval, t.typcategory, t.typispreferred, t.typdelim, t.typelem::regtype, t.typalign,
                    t.typstorage, quote_nullable(t.typdefault), t.typcollation::regcollation)
       END,
       t.oid::int8, NULL,
       CASE t.typtype
           WHEN 'e' THEN (SELECT json_build_object('labels',
                                     coalesce(json_agg(json_build_array(l.oid::int8, l.enumlabel)
                                                       ORDER BY l.enumsortorder), '[]'))
                            FROM pg_enum AS l WHERE l.enumtypid = t.oid)
           WHEN 'd' THEN json_build_object('base', format_type(t.typbasetype, t.typtypmod), 'notNull', t.typnotnull,
                                           'default', pg_get_expr(t.typdefaultbin, 0))
       END::text
  FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
  LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
  LEFT JOIN pg_class AS c ON c.oid = t.typrelid
 WHERE {ours} AND {mine}
   AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c'
        OR t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type AS a WHERE a.typarray = t.oid))
""").format(ours=OURS, mine=mine("pg_type", "t"))

# The options of a user mapping hold passwords: not even a hash of them is kept.
_FOREIGN = sql.SQL("""
SELECT 'foreign data wrapper', quote_ident(w.fdwname),
       concat_ws(' ', 'handler', w.fdwhandler::regproc, 'validator', w.fdwvalidator::regproc,
           'options ' || {wrapper_options}),
       w.oid::int8, NULL, NULL
  FROM pg_foreign_data_wrapper AS w WHERE {wrapper_mine}
UNION ALL
SELECT 'foreign server', quote_ident(s.srvname),
       concat_ws(' ', 'of', quote_ident(w.fdwname), 'type ' || quote_literal(s.srvtype),
           'version ' || quote_literal(s.srvversion), 'options ' || {server_options}), s.oid::int8, NULL, NULL
  FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw WHERE {server_mine}
UNION ALL
SELECT 'user mapping',
       format('%s on %I', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END, u.srvname),
       '', u.umid::int8, NULL, NULL
  FROM pg_user_mappings AS u
""").format(
    wrapper_options=in_order("w.fdwoptions"),
    wrapper_mine=mine("pg_foreign_data_wrapper", "w"),
    server_options=in_order("s.srvoptions"),
    server_mine=mine("pg_foreign_server", "s"),
)

_PUBLICATIONS = sql.SQL("""
SELECT 'publication', quote_ident(p.pubname),
       concat_ws(E'\\n', 'owner ' || quote_ident(pg_get_userbyid(p.pubowner)),
           (to_jsonb(p) - 'oid' - 'pubname' - 'pubowner')::text,  -- versions differ in what they have
           (SELECT string_agg(concat_ws(' ', format('table %I.%I', n.nspname, c.relname),
                       (SELECT format('(%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname))
                          FROM pg_attribute AS a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)
                        HAVING count(*) > 0),
                       'where ' || pg_get_expr(r.prqual, r.prrelid)), ', ' ORDER BY n.nspname, c.relname)
              FROM pg_publication_rel AS r JOIN pg_class AS c ON c.oid = r.prrelid
              JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid),
           (SELECT string_agg('schema ' || quote_ident(n.nspname), ', ' ORDER BY n.nspname)
              FROM pg_publication_namespace AS r JOIN pg_namespace AS n ON n.oid = r.pnnspid WHERE r.pnpubid = p.oid)),
       p.oid::int8, NULL, NULL
  FROM pg_publication AS p WHERE {publication_mine}
UNION ALL
SELECT 'event trigger', quote_ident(t.evtname),
       concat_ws(' ', 'on', t.evtevent, 'when ' || {tags}, 'do', t.evtfoid::regprocedure, 'enabled', t.evtenabled,
           'owner', quote_ident(pg_get_userbyid(t.evtowner))), t.oid::int8, NULL, NULL
  FROM pg_event_trigger AS t WHERE {trigger_mine}
""").format(
    publication_mine=mine("pg_publication", "p"),
    tags=in_order("t.evttags"),
    trigger_mine=mine("pg_event_trigger", "t"),
)

_LANGUAGE = sql.SQL("""
SELECT 'collation', format('%I.%I', n.nspname, c.collname),
       concat_ws(' ', 'provider', c.collprovider, CASE WHEN NOT c.collisdeterministic THEN 'not deterministic' END,
           c.collcollate, c.collctype,  -- the other names differ between versions
           to_jsonb(c) ->> 'colliculocale', to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'collicurules',
           'owner', quote_ident(pg_get_userbyid(c.collowner))), c.oid::int8, NULL, NULL
  FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace WHERE {ours} AND {collation_mine}
UNION ALL
SELECT 'text search configuration', format('%I.%I', n.nspname, c.cfgname),
       concat_ws(' ', (SELECT format('parser %I.%I', pn.nspname, p.prsname) FROM pg_ts_parser AS p
                         JOIN pg_namespace AS pn ON pn.oid = p.prsnamespace WHERE p.oid = c.cfgparser),
           (SELECT string_agg(format('%s %s', m.maptokentype, m.mapdict::regdictionary), ', '
                              ORDER BY m.maptokentype, m.mapseqno)
              FROM pg_ts_config_map AS m WHERE m.mapcfg = c.oid),
           'owner', quote_ident(pg_get_userbyid(c.cfgowner))), c.oid::int8, NULL, NULL
  FROM pg_ts_config AS c JOIN pg_namespace AS n ON n.oid = c.cfgnamespace WHERE {ours} AND {configuration_mine}
UNION ALL
SELECT 'text search dictionary', format('%I.%I', n.nspname, d.dictname),
       concat_ws(' ', (SELECT format('template %I.%I', tn.nspname, t.tmplname) FROM pg_ts_template AS t
                         JOIN pg_namespace AS tn ON tn.oid = t.tmplnamespace WHERE t.oid = d.dicttemplate),
           d.dictinitoption, 'owner', quote_ident(pg_get_userbyid(d.dictowner))), d.oid::int8, NULL, NULL
  FROM pg_ts_dict AS d JOIN pg_namespace AS n ON n.oid = d.dictnamespace WHERE {ours} AND {dictionary_mine}
UNION ALL
SELECT 'operator', o.oid::regoperator::text,
       concat_ws(' ', o.oprcode::oid::regprocedure, 'commutator', o.oprcom::regoperator, 'negator',
           o.oprnegate::regoperator, 'selectivity', o.oprrest, o.oprjoin, 'merges', o.oprcanmerge,
           'hashes', o.oprcanhash, 'owner', quote_ident(pg_get_userbyid(o.oprowner))), o.oid::int8, NULL, NULL
  FROM pg_operator AS o JOIN pg_namespace AS n ON n.oid = o.oprnamespace WHERE {ours} AND {operator_mine}
UNION ALL
SELECT 'cast', format('%s as %s', format_type(c.castsource, NULL), format_type(c.casttarget, NULL)),
       concat_ws(' ', c.castfunc::regprocedure, 'context', c.castcontext, 'method', c.castmethod),
       c.oid::int8, NULL, NULL
  FROM pg_cast AS c WHERE c.oid >= {first} AND {cast_mine}
""").format(
    ours=OURS,
    collation_mine=mine("pg_collation", "c"),
    configuration_mine=mine("pg_ts_config", "c"),
    dictionary_mine=mine("pg_ts_dict", "d"),
    operator_mine=mine("pg_operator", "o"),
    cast_mine=mine("pg_cast", "c"),
    first=FIRST_OID,
)

QUERIES = (_SCHEMAS, _FUNCTIONS, _TYPES, _FOREIGN, _PUBLICATIONS, _LANGUAGE)
