"""The SQL of notifications. A `next_at` of NULL: nothing more is done about it."""

from __future__ import annotations

from typing import LiteralString

ENDED: LiteralString = """
SELECT o.id, o.app, o.kind, o.status, o.committed, o.params, o.finished_at, o.requested_by, o.reason, o.error,
       d.image_tag, d.from_image_tag, d.verdict
FROM operations o LEFT JOIN deployments d ON d.id = o.id WHERE o.id = %(id)s
"""
ADD: LiteralString = """
INSERT INTO notifications (id, operation_id, app, event, at, payload)
VALUES (%(id)s, %(operation_id)s, %(app)s, %(event)s, %(at)s, %(payload)s) ON CONFLICT (id) DO NOTHING
"""
UNADDRESSED: LiteralString = """
SELECT id, app, event, attempts FROM notifications WHERE next_at <= clock_timestamp() ORDER BY next_at LIMIT %(limit)s
"""
ADDRESS: LiteralString = """
WITH added AS (INSERT INTO deliveries (notification_id, url) SELECT %(id)s, url FROM unnest(%(urls)s::text[]) AS url
               ON CONFLICT (notification_id, url) DO NOTHING)
UPDATE notifications SET attempts = attempts + 1, last_error = %(why)s,
       next_at = clock_timestamp() + make_interval(secs => %(pause_s)s)
WHERE id = %(id)s AND next_at IS NOT NULL
"""
# An attempt counts from its claim on: one that takes the server down with it is not made for ever.
CLAIM: LiteralString = """
WITH due AS MATERIALIZED (
    SELECT notification_id, url FROM deliveries
    WHERE next_at <= clock_timestamp() AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
    ORDER BY next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE deliveries SET attempts = deliveries.attempts + 1,
       claimed_until = clock_timestamp() + make_interval(secs => %(claim_s)s)
FROM due JOIN notifications n ON n.id = due.notification_id
WHERE deliveries.notification_id = due.notification_id AND deliveries.url = due.url
RETURNING deliveries.notification_id, deliveries.url, deliveries.attempts AS attempt, n.payload,
          clock_timestamp() AS at
"""
# Whoever comes late with an attempt changes nothing of what another server has found out since.
SETTLE: LiteralString = """
UPDATE deliveries SET claimed_until = NULL, last_error = %(error)s,
       delivered_at = CASE WHEN %(delivered)s THEN clock_timestamp() END,
       next_at = clock_timestamp() + make_interval(secs => %(pause_s)s)
WHERE notification_id = %(id)s AND url = %(url)s AND delivered_at IS NULL
  AND (attempts = %(attempt)s OR %(delivered)s)
"""
NEXT_DUE: LiteralString = """
SELECT extract(epoch FROM least(
    (SELECT min(next_at) FROM notifications WHERE next_at IS NOT NULL),
    (SELECT min(greatest(next_at, claimed_until)) FROM deliveries WHERE next_at IS NOT NULL)
) - clock_timestamp())::float8 AS seconds
"""
RECENT: LiteralString = """
SELECT n.id, n.operation_id, n.app, n.event, n.at, n.next_at, n.last_error, coalesce(d.deliveries, '[]') AS deliveries
FROM notifications n LEFT JOIN LATERAL (
    SELECT json_agg(json_build_object('url', url, 'attempts', attempts, 'next_at', next_at, 'last_error', last_error,
                                      'delivered_at', delivered_at) ORDER BY url) AS deliveries,
           bool_or(delivered_at IS NULL) AS undelivered
    FROM deliveries WHERE notification_id = n.id) d ON true
WHERE %(apps)s::text[] IS NULL OR n.app = ANY(%(apps)s)
ORDER BY coalesce(d.undelivered, false) OR n.next_at IS NOT NULL OR n.last_error <> '' DESC, n.at DESC LIMIT %(limit)s
"""
FORGET_OLD: LiteralString = """
DELETE FROM notifications n
WHERE at < clock_timestamp() - interval '7 days' AND next_at IS NULL
  AND NOT EXISTS (SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.next_at IS NOT NULL)
  AND (at < clock_timestamp() - interval '30 days'
       OR n.last_error = ''
          AND NOT EXISTS (SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.delivered_at IS NULL))
"""
