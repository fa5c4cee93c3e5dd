"""All SQL of Norn's own store, by what it is for. The database's clock is the only clock."""

from __future__ import annotations

from typing import LiteralString

# ---- servers and claims ------------------------------------------------------------------------------------------

REGISTER_SERVER: LiteralString = """
INSERT INTO servers (id, host, boot_id, pid, pid_start, place)
VALUES (%(id)s, %(host)s, %(boot_id)s, %(pid)s, %(pid_start)s, %(place)s)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
SERVERS_OF_HOST: LiteralString = (
    "SELECT id, boot_id, pid, pid_start FROM servers WHERE host = %(host)s AND id <> %(id)s"
)
EXPIRE_LEASES_OF: LiteralString = """
UPDATE operations SET lease_until = clock_timestamp() WHERE status = 'running' AND owner = %(id)s
"""
REMOVE_SERVER: LiteralString = "DELETE FROM servers WHERE id = %(id)s"

# A server holds a lock for as long as it has its connection: the kernel of one that was killed closes that at once. One
# whose lock has gone, and which has not been heard of for a moment, is dead; after a restart of PostgreSQL, which takes
# all locks with it, only the end of the lease says so.
HOLD_SERVER: LiteralString = """
SELECT pg_advisory_lock(1315926638, number) FROM servers WHERE id = %(id)s
"""
SERVER_HOLDS: LiteralString = "UPDATE servers SET holds = true WHERE id = %(id)s"
CLAIM_ORPHAN: LiteralString = """
UPDATE operations SET owner = %(server)s, fence = next_fence(app), claims = claims + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE id = (SELECT id FROM operations
            WHERE status = 'running' AND id <> ALL (%(running)s) AND (place IS NULL OR place = %(place)s)
              AND (lease_until < clock_timestamp()
                   OR pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => 2 * %(lease_s)s)
                      AND owner IN (
                          SELECT id FROM servers dead
                          WHERE holds AND id <> %(server)s
                            AND seen_at < clock_timestamp() - make_interval(secs => %(silent_s)s)
                            AND NOT EXISTS (
                                SELECT FROM pg_locks JOIN pg_database d ON d.oid = pg_locks.database
                                WHERE locktype = 'advisory' AND d.datname = current_database()
                                  AND classid = 1315926638 AND objid = dead.number AND objsubid = 2)))
            ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *
"""
CLAIM_QUEUED: LiteralString = """
UPDATE operations SET status = 'running', owner = %(server)s, fence = next_fence(app), claims = claims + 1,
       started_at = coalesce(started_at, clock_timestamp()),
       lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE id = (SELECT id FROM operations queued
            WHERE status = 'queued' AND (place IS NULL OR place = %(place)s)
              AND NOT EXISTS (SELECT FROM operations r WHERE r.app = queued.app AND r.status = 'running')
            ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *
"""
BEAT: LiteralString = """
UPDATE operations SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM unnest(%(ids)s::text[], %(fences)s::bigint[]) AS mine (id, fence)
WHERE operations.id = mine.id AND operations.fence = mine.fence AND status = 'running'
RETURNING operations.id, cancel IS NOT NULL AS cancelled
"""
SERVER_SEEN: LiteralString = """
WITH seen AS (UPDATE servers SET seen_at = clock_timestamp() WHERE id = %(id)s)
SELECT count(*) AS others FROM servers WHERE id <> %(id)s AND seen_at > clock_timestamp() - interval '1 minute'
"""
SERVERS: LiteralString = """
SELECT id, host, started_at, seen_at, clock_timestamp() - seen_at AS silent FROM servers ORDER BY started_at
"""
STALE_LEASES: LiteralString = """
SELECT id, app, kind, owner, clock_timestamp() - lease_until AS overdue FROM operations
WHERE status = 'running' AND lease_until < clock_timestamp() - interval '10 seconds' ORDER BY lease_until
"""
FORGET_DEAD_SERVERS: LiteralString = """
DELETE FROM servers WHERE seen_at < clock_timestamp() - interval '1 day'
"""
NOTE_HEALTH: LiteralString = """
INSERT INTO health_checks (app, wanted, ready, restarts, response_ms, message)
VALUES (%(app)s, %(wanted)s, %(ready)s, %(restarts)s, %(response_ms)s, %(message)s)
"""
HEALTH_ASKED: LiteralString = """
SELECT DISTINCT app FROM health_checks WHERE at > clock_timestamp() - make_interval(secs => %(within_s)s)
"""
HEALTH: LiteralString = """
SELECT at, wanted, ready, restarts, response_ms, message FROM health_checks
WHERE app = %(app)s AND at > clock_timestamp() - make_interval(secs => %(within_s)s) ORDER BY at DESC LIMIT %(limit)s
"""
FORGET_OLD_HEALTH: LiteralString = "DELETE FROM health_checks WHERE at < clock_timestamp() - interval '1 day'"
RELEASE: LiteralString = """
UPDATE operations SET lease_until = clock_timestamp(), claims = claims - 1
WHERE id = %(id)s AND fence = %(fence)s AND status = 'running'
"""
HOLD_FENCE: LiteralString = """
SELECT app FROM operations WHERE id = %(id)s AND fence = %(fence)s AND status = 'running' FOR UPDATE
"""

# ---- an operation's own writes (behind HOLD_FENCE) ---------------------------------------------------------------

BEGIN_STEP: LiteralString = """
INSERT INTO operation_steps (operation_id, ordinal, step, status) VALUES (%(id)s, %(ordinal)s, %(step)s, 'running')
ON CONFLICT (operation_id, ordinal) DO UPDATE SET status = 'running', finished_at = NULL
"""
END_STEP: LiteralString = """
UPDATE operation_steps SET status = %(status)s, output = %(output)s,
       finished_at = CASE WHEN %(status)s = 'undone' THEN finished_at ELSE clock_timestamp() END
WHERE operation_id = %(id)s AND ordinal = %(ordinal)s RETURNING step
"""
STEP_OUTPUT: LiteralString = """
UPDATE operation_steps SET output = %(output)s WHERE operation_id = %(id)s AND ordinal = %(ordinal)s
"""
SAVE_STATE: LiteralString = "UPDATE operations SET state = %(state)s WHERE id = %(id)s"
MARK: LiteralString = """
UPDATE operations SET accepted = coalesce(%(accepted)s, accepted), committed = coalesce(%(committed)s, committed),
       undoing = undoing OR %(undoing)s::jsonb IS NOT NULL, error = coalesce(%(undoing)s::jsonb, error)
WHERE id = %(id)s
"""
END_OPERATION: LiteralString = """
UPDATE operations SET status = %(status)s, error = coalesce(%(error)s::jsonb, error), result = %(result)s,
       finished_at = clock_timestamp(), lease_until = NULL, owner = NULL
WHERE id = %(id)s
"""
END_LIVE: LiteralString = """
UPDATE deployments SET live_until = clock_timestamp()
WHERE app = %(app)s AND live_from IS NOT NULL AND live_until IS NULL AND id <> %(id)s
"""
MAKE_LIVE: LiteralString = """
UPDATE deployments SET rolled_out_at = coalesce(rolled_out_at, clock_timestamp()),
       live_from = coalesce(live_from, clock_timestamp()), live_until = NULL
WHERE id = %(id)s
"""
MARK_ROLLED_BACK: LiteralString = """
UPDATE deployments SET status = 'rolled_back', rolled_back_at = clock_timestamp(), rolled_back_by = %(by)s
WHERE id = %(replaced)s AND status <> 'rolled_back'
"""
QUARANTINE: LiteralString = """
INSERT INTO quarantine (app, image_tag, digest, commit_sha, deployment_id, why)
SELECT app, image_tag, digest, commit_sha, id, %(why)s FROM deployments WHERE id = %(replaced)s
ON CONFLICT (app, image_tag) DO NOTHING
"""
LIFT_QUARANTINE: LiteralString = """
DELETE FROM quarantine WHERE app = %(app)s
   AND (image_tag = %(image_tag)s OR digest = %(digest)s
        OR digest = (SELECT digest FROM quarantine WHERE app = %(app)s AND image_tag = %(image_tag)s))
RETURNING image_tag
"""
ADD_SNAPSHOT: LiteralString = """
INSERT INTO snapshots (name, app, database, commit_sha, operation_id, reason, size_bytes, taken_at, kept, host, sha256)
VALUES (%(name)s, %(app)s, %(database)s, %(commit_sha)s, %(id)s, %(reason)s, %(size_bytes)s, %(taken_at)s, %(kept)s,
        %(host)s, %(sha256)s)
ON CONFLICT (name) DO NOTHING
"""
SNAPSHOT_VERIFIED: LiteralString = """
UPDATE snapshots SET verification = %(verification)s,
       verified_at = CASE WHEN (%(verification)s ->> 'ok')::boolean THEN clock_timestamp() ELSE verified_at END
WHERE app = %(app)s AND name = %(name)s
"""
SNAPSHOT_REMOVED: LiteralString = """
UPDATE snapshots SET removed_at = coalesce(removed_at, clock_timestamp()), removed_why = coalesce(removed_why, %(why)s)
WHERE app = %(app)s AND name = %(name)s
"""
ADD_RESTORE: LiteralString = """
WITH added AS (
    INSERT INTO restores (id, app, database, former, snapshot, undoes, moment)
    VALUES (%(id)s, %(app)s, %(database)s, %(former)s, %(snapshot)s, %(undoes)s, %(moment)s)
    ON CONFLICT (id) DO NOTHING RETURNING undoes)
UPDATE restores SET undone_by = %(id)s WHERE id = (SELECT undoes FROM added) AND undone_by IS NULL
"""
FORMER_DROPPED: LiteralString = """
UPDATE restores SET dropped_at = clock_timestamp() WHERE app = %(app)s AND id = %(restore)s AND dropped_at IS NULL
"""
_NOTE_SURROUNDINGS: LiteralString = """
INSERT INTO surroundings (deployment_id, moment, app, at, database, configuration, database_id, losses, rewritten)
VALUES (%(id)s, %(moment)s, %(app)s, %(at)s, %(database)s, %(configuration)s, %(database_id)s, %(losses)s,
        %(rewritten)s) ON CONFLICT (deployment_id, moment) DO """
NOTE_SURROUNDINGS: LiteralString = _NOTE_SURROUNDINGS + "NOTHING"
NOTE_SURROUNDINGS_AGAIN: LiteralString = (
    _NOTE_SURROUNDINGS
    + """
UPDATE SET at = EXCLUDED.at, database = EXCLUDED.database, configuration = EXCLUDED.configuration,
           database_id = EXCLUDED.database_id, losses = EXCLUDED.losses, rewritten = EXCLUDED.rewritten"""
)
NOTE_CONFIGURATION: LiteralString = """
UPDATE surroundings SET configuration = %(configuration)s WHERE deployment_id = %(id)s AND moment = %(moment)s
"""
IMAGE_BUILT: LiteralString = """
INSERT INTO images (app, image_tag, digest) VALUES (%(app)s, %(image_tag)s, %(digest)s)
ON CONFLICT (app, image_tag, digest) DO UPDATE SET built_at = clock_timestamp(), removed_at = NULL
"""
IMAGE_REMOVED: LiteralString = """
UPDATE images SET removed_at = clock_timestamp()
WHERE app = %(app)s AND image_tag = %(image_tag)s AND digest = %(digest)s AND removed_at IS NULL
"""
ASK: LiteralString = "UPDATE operations SET asks = %(asks)s, confirmed = NULL WHERE id = %(id)s"
DEPLOYMENT_EVENT: LiteralString = """
SELECT id, app, kind, status, image_tag FROM deployments WHERE id = %(id)s
"""

# ---- taking requests ---------------------------------------------------------------------------------------------

LOCK_APP: LiteralString = "SELECT pg_advisory_xact_lock(hashtextextended('norn app ' || %(app)s, 0))"
# A statement that fails, with those that are on their way behind it: nobody waits for its answer before they are sent.
EXPECT: LiteralString = """
SELECT 1 / (coalesce((SELECT array_agg(id || ' ' || committed ORDER BY id COLLATE "C") FROM operations
                       WHERE app = %(app)s AND status IN ('queued', 'running')), '{}') = %(active)s::text[]
            AND (SELECT id FROM deployments WHERE app = %(app)s AND live_from IS NOT NULL AND live_until IS NULL)
                IS NOT DISTINCT FROM %(live)s::text)::integer
"""
ADD_OPERATION: LiteralString = """
INSERT INTO operations (id, app, kind, status, params, requested_by, reason, place)
VALUES (%(id)s, %(app)s, %(kind)s, 'queued', %(params)s, %(requested_by)s, %(reason)s, %(place)s)
"""
# Unless somebody has asked for something else meanwhile.
FOLLOW_WITH: LiteralString = """
INSERT INTO operations (id, app, kind, status, params, requested_by, reason, place)
SELECT %(id)s, app, %(kind)s, 'queued', %(params)s, %(requested_by)s, %(reason)s, place FROM operations own
WHERE id = %(own)s AND cancel IS NULL
  AND NOT EXISTS (SELECT FROM operations WHERE app = own.app AND status IN ('queued', 'running') AND id <> own.id)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
ADD_BEGUN: LiteralString = """
INSERT INTO operations (id, app, kind, status, params, requested_by, reason, state, owner, fence, claims, started_at,
                        lease_until, place)
VALUES (%(id)s, %(app)s, %(kind)s, 'running', %(params)s, %(requested_by)s, %(reason)s, %(state)s, %(server)s,
        next_fence(%(app)s), 1, clock_timestamp(), clock_timestamp() + make_interval(secs => %(lease_s)s), %(place)s)
RETURNING *
"""
ADD_BEGUN_STEPS: LiteralString = """
INSERT INTO operation_steps (operation_id, ordinal, step, status, output, finished_at)
SELECT %(id)s, ordinal, step, status, output, CASE WHEN status = 'done' THEN clock_timestamp() END
FROM jsonb_to_recordset(%(steps)s) AS given (ordinal integer, step text, status text, output text)
RETURNING *
"""
CANCEL: LiteralString = """
UPDATE operations SET cancel = %(cancel)s WHERE id = %(id)s AND status IN ('queued', 'running') AND cancel IS NULL
RETURNING id
"""
CONFIRM: LiteralString = """
UPDATE operations SET confirmed = %(confirmed)s
WHERE id = %(id)s AND app = %(app)s AND status = 'running' AND asks IS NOT NULL AND confirmed IS NULL
RETURNING kind, asks
"""
REMEMBER_KEY: LiteralString = """
INSERT INTO idempotency_keys (key, request_hash, operation_id) VALUES (%(key)s, %(request_hash)s, %(operation_id)s)
"""
REMEMBER_ANSWER: LiteralString = """
INSERT INTO idempotency_keys (key, request_hash, operation_id, unchanged)
VALUES (%(key)s, %(request_hash)s, %(operation_id)s, true) ON CONFLICT (key) DO NOTHING RETURNING key
"""
FORGET_OLD_KEYS: LiteralString = """
DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '1 day'
"""
REMEMBERED: LiteralString = """
SELECT request_hash, operation_id, unchanged FROM idempotency_keys WHERE key = %(key)s
"""

# ---- reading -----------------------------------------------------------------------------------------------------

NOW: LiteralString = "SELECT clock_timestamp() AS now"
OPERATION: LiteralString = "SELECT * FROM operations WHERE id = %(id)s"
STEPS: LiteralString = "SELECT * FROM operation_steps WHERE operation_id = %(id)s ORDER BY ordinal"
ACTIVE_OF_APP: LiteralString = """
SELECT * FROM operations WHERE app = %(app)s AND status IN ('queued', 'running') ORDER BY seq DESC
"""
ACTIVE: LiteralString = """
SELECT * FROM (SELECT * FROM operations WHERE status = 'queued'
               UNION ALL SELECT * FROM operations WHERE status = 'running') active ORDER BY seq DESC
"""
DEPLOYMENT: LiteralString = "SELECT * FROM deployments WHERE id = %(id)s"
DEPLOYMENTS: LiteralString = """
SELECT * FROM deployments
WHERE (%(status)s::text IS NULL OR status = %(status)s) AND seq < %(before)s
  AND (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s))
ORDER BY seq DESC LIMIT %(limit)s
"""
DEPLOYMENTS_OF_APP: LiteralString = """
SELECT * FROM deployments
WHERE app = %(app)s AND (%(status)s::text IS NULL OR status = %(status)s) AND seq < %(before)s
ORDER BY seq DESC LIMIT %(limit)s
"""
ROLLED_OUT: LiteralString = """
SELECT * FROM deployments WHERE app = %(app)s AND rolled_out_at IS NOT NULL ORDER BY seq DESC LIMIT %(limit)s
"""
LIVE_DEPLOYMENT: LiteralString = """
SELECT * FROM deployments WHERE app = %(app)s AND live_from IS NOT NULL AND live_until IS NULL
"""
DEPLOYMENT_OF_DIGEST: LiteralString = """
SELECT * FROM deployments WHERE app = %(app)s AND digest = %(digest)s AND rolled_out_at IS NOT NULL
ORDER BY seq DESC LIMIT 1
"""
VERSIONS: LiteralString = """
SELECT * FROM (SELECT DISTINCT ON (commit_sha) * FROM deployments
               WHERE app = %(app)s AND commit_sha LIKE %(prefix)s
               ORDER BY commit_sha, rolled_out_at IS NULL, seq DESC) newest
ORDER BY seq DESC LIMIT %(limit)s
"""
VERSIONS_OF_TAG: LiteralString = """
SELECT * FROM (SELECT DISTINCT ON (digest) * FROM deployments
               WHERE app = %(app)s AND image_tag = %(image_tag)s
               ORDER BY digest, rolled_out_at IS NULL, seq DESC) newest
ORDER BY seq DESC LIMIT 10
"""
QUARANTINED: LiteralString = "SELECT * FROM quarantine WHERE app = %(app)s ORDER BY since DESC"
SNAPSHOTS: LiteralString = """
SELECT * FROM snapshots WHERE app = %(app)s AND removed_at IS NULL ORDER BY taken_at DESC
"""
BUILT_IMAGES: LiteralString = """
SELECT image_tag, digest, removed_at FROM images WHERE app = %(app)s ORDER BY built_at DESC
"""
RESTORES: LiteralString = """
SELECT * FROM restores
WHERE app = %(app)s AND (dropped_at IS NULL OR restored_at > clock_timestamp() - interval '90 days')
ORDER BY seq DESC LIMIT 100
"""

NEWEST_CHANGE: LiteralString = """
SELECT clock_timestamp() AS now,
       coalesce((SELECT string_agg(id, ' ' ORDER BY id) FROM operations
                  WHERE status IN ('queued', 'running') AND NOT committed
                    AND (kind IN ('deploy', 'restore') OR kind = 'rollback' AND params ? 'withData')), '') AS under_way,
       coalesce((SELECT id FROM operations
                  WHERE kind IN ('deploy', 'restore') OR kind = 'rollback' AND params ? 'withData'
                  ORDER BY seq DESC LIMIT 1), '')
       || coalesce((SELECT max(seq)::text FROM audit WHERE action IN ('secret.set', 'secret.unset')), '') AS newest
"""
# Where another server has just made it, the key is not to be seen in the same statement: hence the update.
INSTALLATION_KEY: LiteralString = """
INSERT INTO installation (key) VALUES (%(new)s) ON CONFLICT (single) DO UPDATE SET single = true RETURNING key
"""
SURROUNDINGS_NOTED: LiteralString = """
SELECT deployment_id, moment, at, database_id, losses, rewritten, database IS NOT NULL AS looked
  FROM surroundings WHERE app = %(app)s ORDER BY at DESC
"""
SURROUNDINGS: LiteralString = "SELECT * FROM surroundings WHERE deployment_id = %(id)s AND moment = %(moment)s"

# ---- events ------------------------------------------------------------------------------------------------------

# A sequence alone numbers in the order of insertion: a reader who has seen 8 would never see a 7 that commits later.
# Under this lock, held to the commit, numbers follow the order of commits.
PUBLISH: LiteralString = """
WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock(7235419)),
     added AS (INSERT INTO events (seq, app, operation_id, type, data)
               SELECT nextval('event_numbers'), %(app)s, event ->> 'operation_id', event ->> 'type', event -> 'data'
               FROM alone, jsonb_array_elements(%(events)s) WITH ORDINALITY AS given (event, place) ORDER BY place)
SELECT pg_notify('norn', payload) FROM unnest(%(payloads)s::text[]) AS payload
"""
EVENTS_AFTER: LiteralString = "SELECT * FROM events WHERE seq > %(seq)s ORDER BY seq LIMIT %(limit)s"
EVENTS_OF_APP_AFTER: LiteralString = """
SELECT * FROM events WHERE seq > %(seq)s AND app = %(app)s ORDER BY seq LIMIT %(limit)s
"""
EVENTS_OF_OPERATION_AFTER: LiteralString = """
SELECT * FROM events WHERE seq > %(seq)s AND operation_id = %(operation)s ORDER BY seq LIMIT %(limit)s
"""
KEPT_EVENTS: LiteralString = """
SELECT coalesce((SELECT min(seq) FROM events), given + 1) AS oldest,
       coalesce((SELECT max(seq) FROM events), given) AS newest
FROM (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS given FROM event_numbers) numbers
"""
# Of an app's newest deployments all is kept: one of them is what a rollback goes to.
FORGET_OLD_SURROUNDINGS: LiteralString = """
DELETE FROM surroundings WHERE at < clock_timestamp() - interval '90 days'
AND deployment_id NOT IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY app ORDER BY seq DESC) AS place
                                            FROM deployments) AS numbered WHERE place <= 50)
"""
FORGET_OLD_EVENTS: LiteralString = "DELETE FROM events WHERE at < clock_timestamp() - interval '7 days'"
NOTIFY: LiteralString = "SELECT pg_notify('norn', payload) FROM unnest(%(payloads)s::text[]) AS payload"
