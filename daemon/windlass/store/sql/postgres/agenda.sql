-- How daemons share the work. `:at` is the time for tests that own it; else the server's clock counts.
-- `:name` is this daemon, `:me` is this start of it (`name/incarnation`): leases belong to a start.

-- name: register
INSERT INTO daemon (name, home, host, pid, version, workers, started_at, until)
VALUES (:name, :home, :host, :pid, :version, :workers, coalesce(:at, now()),
        coalesce(:at, now()) + :lease::interval)
ON CONFLICT (name) DO UPDATE
SET home = excluded.home, host = excluded.host, pid = excluded.pid, version = excluded.version,
    workers = excluded.workers, incarnation = daemon.incarnation + 1,
    started_at = excluded.started_at, until = excluded.until
WHERE daemon.home = excluded.home OR daemon.until <= coalesce(:at, now())
RETURNING incarnation

-- name: daemon
SELECT name, home, host, pid, incarnation, until FROM daemon WHERE name = :name

-- name: beat
UPDATE daemon SET until = coalesce(:at, now()) + :lease::interval
WHERE name = :name AND incarnation = :incarnation
RETURNING (SELECT count(*) FROM agenda WHERE owner = :me) AS held

-- name: evict
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user
  AND application_name = :application AND pid <> pg_backend_pid()

-- name: evict_silent
SELECT pg_terminate_backend(s.pid)
FROM pg_stat_activity s JOIN daemon d ON s.application_name = left('windlass ' || d.name, 63)
WHERE s.datname = current_database() AND s.usename = current_user
  AND d.until <= coalesce(:at, now()) AND d.name <> :name

-- name: retire
UPDATE daemon SET until = coalesce(:at, now()) WHERE name = :name AND incarnation = :incarnation
RETURNING name

-- name: free
WITH mine AS (SELECT uid FROM agenda WHERE who(owner) = :name ORDER BY key FOR UPDATE)
UPDATE agenda a SET owner = '', token = token + 1 FROM mine WHERE a.uid = mine.uid

-- name: give_back
WITH mine AS (
    SELECT uid FROM agenda WHERE owner = :me AND key = ANY(:keys) ORDER BY key FOR UPDATE
)
UPDATE agenda a SET owner = '', token = token + 1 FROM mine WHERE a.uid = mine.uid

-- name: free_leases
UPDATE lease SET owner = '' WHERE who(owner) = :name

-- name: daemons
SELECT d.name, d.host, d.pid, d.version, d.workers, d.started_at, d.until,
       d.until > coalesce(:at, now()) AS alive,
       (SELECT count(*) FROM agenda a WHERE a.owner = d.name || '/' || d.incarnation) AS held,
       (SELECT coalesce(array_agg(l.name ORDER BY l.name), '{}') FROM lease l
        WHERE l.owner = d.name || '/' || d.incarnation) AS leases,
       (SELECT coalesce(array_agg(b.target ORDER BY b.target), '{}') FROM binding b
        WHERE b.daemon = d.name) AS targets
FROM daemon d
ORDER BY d.name

-- name: hold
INSERT INTO lease (name, owner, since) VALUES (:lease, :me, coalesce(:at, now()))
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner,
    since = CASE WHEN lease.owner = excluded.owner THEN lease.since ELSE excluded.since END
WHERE lease.owner = excluded.owner OR NOT alive(lease.owner, coalesce(:at, now()))
RETURNING owner

-- name: holder
SELECT who(owner) AS owner FROM lease WHERE name = :lease

-- name: lock_declared
SELECT pg_advisory_xact_lock(87013001)

-- name: admit
SELECT incarnation FROM daemon WHERE name = :name

-- name: begin
INSERT INTO agenda (uid, key, lane, next_at)
SELECT d.uid, d.key, d.lane, coalesce(:at, now()) FROM desired d
WHERE NOT EXISTS (SELECT 1 FROM agenda a WHERE a.uid = d.uid)

-- name: wake
WITH RECURSIVE woken (key) AS (
    SELECT unnest(:keys::text[])
    UNION
    SELECT r.from_key FROM reference r JOIN woken w ON r.to_key = w.key
), due AS (
    SELECT a.uid FROM agenda a JOIN woken w ON w.key = a.key ORDER BY a.key FOR UPDATE OF a
)
UPDATE agenda a
SET next_at = least(a.next_at, coalesce(:at, now())),
    priority = CASE WHEN a.next_at <= coalesce(:at, now()) THEN least(a.priority, :priority)
                    ELSE :priority END,
    asked = a.asked + 1,
    lane = d.lane,
    home = CASE WHEN a.lane = d.lane THEN a.home ELSE '' END
FROM due, desired d
WHERE a.uid = due.uid AND d.uid = a.uid

-- name: look
WITH due AS (SELECT uid FROM agenda WHERE key = ANY(:keys::text[]) ORDER BY key FOR UPDATE)
UPDATE agenda a
SET next_at = least(a.next_at, coalesce(:at, now())),
    priority = CASE WHEN a.next_at <= coalesce(:at, now()) THEN least(a.priority, :priority)
                    ELSE :priority END,
    asked = a.asked + 1
FROM due
WHERE a.uid = due.uid

-- name: lock_near
SELECT uid FROM agenda
WHERE key = :key OR key = ANY(:keys::text[])
   OR key IN (SELECT from_key FROM reference WHERE to_key = :key)
ORDER BY key
FOR UPDATE

-- name: wake_near
UPDATE agenda
SET next_at = least(next_at, coalesce(:at, now())),
    priority = CASE WHEN next_at <= coalesce(:at, now()) THEN least(priority, :priority)
                    ELSE :priority END,
    asked = asked + 1
WHERE key <> :key
  AND (key = ANY(:keys::text[]) OR key IN (SELECT from_key FROM reference WHERE to_key = :key))

-- name: settle
UPDATE agenda
SET owner = '', token = token + 1, home = coalesce(:home::text, home),
    next_at = CASE WHEN asked = :asked THEN coalesce(:at, now()) + :after::interval
                   ELSE next_at END,
    priority = CASE WHEN asked = :asked THEN :priority ELSE priority END
WHERE uid = :uid AND token = :token
RETURNING uid

-- name: revisit
UPDATE source SET revisit = revisit + 1 WHERE id = :id

-- name: revisits
SELECT id, revisit FROM source WHERE id = ANY(:ids::text[])

-- name: take
WITH due AS (
    SELECT a.uid, a.owner AS before FROM agenda a
    WHERE a.next_at <= coalesce(:at, now())
      AND (a.owner = '' OR NOT alive(a.owner, coalesce(:at, now())))
      AND (a.home IN ('', :name) OR NOT awake(a.home, coalesce(:at, now())))
      AND NOT (a.lane = ANY(:full::text[]))
      AND EXISTS (SELECT 1 FROM daemon WHERE name = :name AND incarnation = :incarnation)
    ORDER BY a.priority, a.next_at
    LIMIT :room
    FOR UPDATE SKIP LOCKED
)
UPDATE agenda a SET owner = :me, token = token + 1
FROM due WHERE a.uid = due.uid
RETURNING a.key, a.lane, a.priority, due.before

-- name: lease
UPDATE agenda a SET owner = :me, token = token + 1
WHERE a.uid = (
    SELECT b.uid FROM agenda b
    WHERE b.key = :key
      AND EXISTS (SELECT 1 FROM daemon WHERE name = :name AND incarnation = :incarnation)
      AND (b.owner = '' OR NOT alive(b.owner, coalesce(:at, now())))
      AND (b.home IN ('', :name) OR NOT awake(b.home, coalesce(:at, now())))
    FOR UPDATE SKIP LOCKED
)
RETURNING a.token

-- name: next_due
SELECT extract(epoch FROM min(next_at) - coalesce(:at, now()))::float8 AS seconds
FROM agenda
WHERE owner = '' AND home IN ('', :name)

-- name: bind
INSERT INTO binding (target, daemon)
VALUES (:target, CASE WHEN :host = '' THEN :name ELSE :host END)
ON CONFLICT (target) DO UPDATE
SET daemon = CASE WHEN :host = '' THEN binding.daemon ELSE :host END
RETURNING daemon, awake(daemon, coalesce(:at, now())) AS alive

-- name: notify
SELECT pg_notify('windlass', :what)
