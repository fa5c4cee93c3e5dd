"""The SQL of tokens and sessions. Every change is said to all servers: `access:` and the id of the token."""

# ruff: noqa: S608 (what is put together here are the constants of this module)

from __future__ import annotations

from typing import LiteralString

_VALID: LiteralString = "t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())"
_KNOWN: LiteralString = """
SELECT t.hash, t.id, t.name, t.role, t.apps, t.home, t.expires_at,
       extract(epoch FROM t.expires_at - clock_timestamp())::float8 AS left_s
"""
_SHOWN: LiteralString = """
id, name, role, apps, home, created_by, created_at, expires_at, last_used_at,
coalesce(expires_at <= clock_timestamp(), false) AS expired
"""
VALID: LiteralString = f"{_KNOWN} FROM tokens t WHERE {_VALID} ORDER BY t.created_at DESC LIMIT 10000"
FIND: LiteralString = f"{_KNOWN} FROM tokens t WHERE t.hash = %(hash)s AND {_VALID}"
TOKEN: LiteralString = f"SELECT {_SHOWN} FROM tokens WHERE name = %(name)s AND revoked_at IS NULL"
TOKENS: LiteralString = f"SELECT {_SHOWN} FROM tokens WHERE revoked_at IS NULL ORDER BY name"
ADD: LiteralString = f"""
WITH added AS (
    INSERT INTO tokens (id, name, hash, role, apps, created_by, expires_at)
    VALUES (%(id)s, %(name)s, %(hash)s, %(role)s, %(apps)s::text[], %(by)s,
            clock_timestamp() + make_interval(secs => %(lasts_s)s))
    RETURNING *)
SELECT {_SHOWN}, pg_notify('norn', 'access:' || id) FROM added
"""
HOME: LiteralString = "SELECT revoked_at IS NULL AS valid FROM tokens WHERE hash = %(hash)s"
ADD_HOME: LiteralString = """
WITH added AS (
    INSERT INTO tokens (id, name, hash, role, home, created_by)
    VALUES (%(id)s, %(name)s, %(hash)s, 'admin', true, %(name)s)
    ON CONFLICT (hash) DO NOTHING RETURNING id)
SELECT pg_notify('norn', 'access:' || id) FROM added
"""
REVOKE: LiteralString = f"""
WITH revoked AS (
    UPDATE tokens SET revoked_at = clock_timestamp(), revoked_by = %(by)s
    WHERE name = %(name)s AND revoked_at IS NULL RETURNING *),
ended AS (DELETE FROM sessions s USING revoked r WHERE s.token_id = r.id)
SELECT {_SHOWN}, pg_notify('norn', 'access:' || id) FROM revoked
"""
USED: LiteralString = """
UPDATE tokens t SET last_used_at = greatest(t.last_used_at, clock_timestamp() - make_interval(secs => u.age_s))
FROM unnest(%(ids)s::text[], %(ages_s)s::float8[]) AS u (id, age_s) WHERE t.id = u.id
"""
BEGIN_SESSION: LiteralString = """
WITH over AS (DELETE FROM sessions WHERE expires_at <= clock_timestamp())
INSERT INTO sessions (hash, token_id, address, expires_at)
VALUES (%(hash)s, %(token_id)s, %(address)s, clock_timestamp() + make_interval(secs => %(lasts_s)s))
"""
SESSION: LiteralString = f"""
{_KNOWN}, s.hash AS session_hash,
       extract(epoch FROM least(s.expires_at, t.expires_at) - clock_timestamp())::float8 AS session_left_s
FROM sessions s JOIN tokens t ON t.id = s.token_id
WHERE s.hash = %(hash)s AND s.expires_at > clock_timestamp() AND {_VALID}
"""
END_SESSION: LiteralString = """
WITH ended AS (DELETE FROM sessions WHERE hash = %(hash)s RETURNING token_id)
SELECT pg_notify('norn', 'access:' || token_id) FROM ended
"""
