-- The statements of the shared store, under the names of the embedded one, and what only it needs.

-- name: get_meta
SELECT value FROM meta WHERE key = :key

-- name: put_meta
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT DO NOTHING

-- name: plainly_declared
SELECT key, digest, resource, path, line
FROM desired
WHERE source = :source AND deleting_since IS NULL AND prune = '' AND faults = '[]' AND conflict = ''

-- name: declared
SELECT key, uid, source, generation, digest, resource, path, line, deleting_since, prune, faults,
       conflict
FROM desired
WHERE NOT (source = :source AND deleting_since IS NULL AND prune = '' AND faults = '[]' AND conflict = '')
   OR key IN (SELECT json_array_elements_text(:keys::json))

-- name: insert_desired
INSERT INTO desired (key, kind, namespace, name, uid, source, generation, digest, resource, files,
                     revision, author, path, line, lane, created_at, generation_at)
VALUES (:key, :kind, :namespace, :name, :uid, :source, 1, :digest, :resource, :files,
        :revision, :author, :path, :line, :lane, :now, :now)

-- name: update_desired
UPDATE desired
SET generation = generation + 1, digest = :digest, resource = :resource, files = :files,
    revision = :revision, author = :author, path = :path, line = :line, lane = :lane, generation_at = :now,
    deleting_since = NULL, prune = '', faults = '[]'
WHERE key = :key

-- name: redeclare
UPDATE desired
SET resource = :resource, path = :path, line = :line, lane = :lane, deleting_since = NULL, prune = '', faults = '[]'
WHERE key = :key

-- name: set_faults
UPDATE desired SET faults = :faults WHERE key = :key

-- name: set_conflict
UPDATE desired SET conflict = :conflict WHERE key = :key

-- name: set_prune
UPDATE desired SET prune = :prune WHERE key = :key

-- name: mark_deleting
UPDATE desired SET deleting_since = :now, prune = '' WHERE key = :key AND deleting_since IS NULL

-- name: set_suspended
UPDATE desired SET suspended = :reason WHERE key = :key

-- name: set_sync_token
UPDATE desired SET sync_token = :token WHERE key = :key

-- name: delete_desired
DELETE FROM desired WHERE uid = :uid

-- name: clear_references
DELETE FROM reference WHERE from_key = :key

-- name: insert_reference
INSERT INTO reference (from_key, to_key) VALUES (:from_key, :to_key) ON CONFLICT DO NOTHING

-- name: dependents
SELECT from_key FROM reference WHERE to_key = :key ORDER BY from_key COLLATE "C"

-- name: put_source
INSERT INTO source (id, revision, faults, error, blocked, updated_at)
VALUES (:id, :revision, :faults, '', :blocked, :now)
ON CONFLICT (id) DO UPDATE
SET revision = excluded.revision, faults = excluded.faults, error = '', blocked = excluded.blocked,
    updated_at = excluded.updated_at

-- name: fail_source
INSERT INTO source (id, revision, faults, error, blocked, updated_at)
VALUES (:id, '', '[]', :error, '[]', :now)
ON CONFLICT (id) DO UPDATE SET error = excluded.error, updated_at = excluded.updated_at
WHERE source.error <> excluded.error

-- name: sources
SELECT id, revision, faults, error, blocked, updated_at FROM source ORDER BY id COLLATE "C"

-- name: clear_blocked
UPDATE source SET blocked = '[]' WHERE id = :id

-- name: objects
SELECT d.key, d.uid, d.generation, d.digest, d.resource, d.files, d.source, d.revision, d.author,
       d.path, d.line, d.created_at, d.generation_at, d.deleting_since, d.prune, d.faults, d.conflict,
       d.suspended, d.sync_token, o.status, o.hold, o.seq,
       (SELECT json_agg(record ORDER BY position)::text FROM external e WHERE e.uid = d.uid) AS records,
       (a.owner <> '' OR a.next_at <= now())::int AS due
FROM desired d LEFT JOIN object o ON o.uid = d.uid LEFT JOIN agenda a ON a.uid = d.uid
WHERE (:kind::text IS NULL OR d.kind = :kind)
  AND (:namespace::text IS NULL OR d.namespace = :namespace)
ORDER BY d.kind COLLATE "C", d.namespace COLLATE "C", d.name COLLATE "C"

-- name: placed
SELECT key, lane FROM desired ORDER BY kind, namespace, name

-- name: object_by_key
SELECT d.key, d.uid, d.generation, d.digest, d.resource, d.files, d.source, d.revision, d.author,
       d.path, d.line, d.created_at, d.generation_at, d.deleting_since, d.prune, d.faults, d.conflict,
       d.suspended, d.sync_token, o.status, o.hold, o.seq,
       (SELECT json_agg(record ORDER BY position)::text FROM external e WHERE e.uid = d.uid) AS records,
       (a.owner <> '' OR a.next_at <= now())::int AS due
FROM desired d LEFT JOIN object o ON o.uid = d.uid LEFT JOIN agenda a ON a.uid = d.uid
WHERE d.key = :key

-- name: claimed
SELECT d.key, d.uid, d.generation, d.digest, d.resource, d.files, d.source, d.revision, d.author,
       d.path, d.line, d.created_at, d.generation_at, d.deleting_since, d.prune, d.faults, d.conflict,
       d.suspended, d.sync_token, o.status, o.hold, o.seq,
       (SELECT json_agg(record ORDER BY position)::text FROM external e WHERE e.uid = d.uid) AS records,
       1 AS due, a.token, a.asked
FROM desired d JOIN agenda a ON a.uid = d.uid LEFT JOIN object o ON o.uid = d.uid
WHERE d.key = :key AND a.owner = :me

-- name: guard
SELECT a.token, 1 AS declared, d.deleting_since, o.seq
FROM agenda a JOIN desired d USING (uid) LEFT JOIN object o USING (uid)
WHERE a.uid = :uid
FOR UPDATE OF a

-- name: put_external
INSERT INTO external (target, role, name, uid, external_id, position, record)
VALUES (:target, :role, :name, :uid, :external_id,
        (SELECT coalesce(max(position), 0) + 1 FROM external WHERE uid = :uid), :record)
ON CONFLICT (target, role, name) DO UPDATE
SET external_id = excluded.external_id, record = excluded.record
WHERE external.uid = excluded.uid
RETURNING uid

-- name: delete_external
DELETE FROM external WHERE target = :target AND role = :role AND name = :name AND uid = :uid

-- name: put_object
INSERT INTO object (uid, status, hold, seq) VALUES (:uid, :status, :hold, :seq)
ON CONFLICT (uid) DO UPDATE SET status = excluded.status, hold = excluded.hold, seq = excluded.seq

-- name: insert_history
INSERT INTO history (key, entry) VALUES (:key, :entry)

-- name: history
SELECT entry FROM history WHERE key = :key ORDER BY position DESC LIMIT :limit

-- name: lock_outbox
SELECT pg_advisory_xact_lock(87013002)

-- name: insert_event
INSERT INTO outbox (uid, seq, event) VALUES (:uid, :seq, :event)

-- name: events
SELECT position, event FROM outbox WHERE position > :after ORDER BY position LIMIT :limit

-- name: last_event
SELECT coalesce(max(position), 0) AS position FROM outbox

-- name: unpublished
SELECT position, event FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT :limit

-- name: backlog
SELECT count(*) AS events FROM outbox WHERE published_at IS NULL

-- name: mark_published
UPDATE outbox SET published_at = :now WHERE position = :position

-- name: mark_all_published
UPDATE outbox SET published_at = :now WHERE published_at IS NULL

-- name: heard
SELECT i.answer, s.revision AS said_revision, s.document AS said, s.author AS said_by,
       s.fault_revision, s.faults AS said_faults,
       d.key, d.uid, d.source, d.generation, d.digest, d.resource, d.revision, d.path, d.line,
       d.deleting_since, d.prune, d.faults, d.conflict
FROM (SELECT 1 AS one) AS here
LEFT JOIN inbox i ON i.source = :source AND i.id = :id
LEFT JOIN spoken s ON s.source = :source AND s.key = :key
LEFT JOIN desired d ON d.key = :key

-- name: put_inbox
INSERT INTO inbox (source, id, answer, received_at) VALUES (:source, :id, :answer, :now)

-- name: forget_inbox
DELETE FROM inbox WHERE received_at < :before

-- name: speak
INSERT INTO spoken (source, key, revision, document, author)
VALUES (:source, :key, :revision, :document, :author)
ON CONFLICT (source, key) DO UPDATE
SET revision = excluded.revision, document = excluded.document, author = excluded.author,
    fault_revision = CASE WHEN :mended::bigint = 1 THEN 0 ELSE spoken.fault_revision END,
    faults = CASE WHEN :mended::bigint = 1 THEN '[]' ELSE spoken.faults END

-- name: speak_badly
INSERT INTO spoken (source, key, fault_revision, faults)
VALUES (:source, :key, :fault_revision, :faults)
ON CONFLICT (source, key) DO UPDATE
SET fault_revision = excluded.fault_revision, faults = excluded.faults

-- name: bad_words
SELECT faults FROM spoken WHERE source = :source AND fault_revision > 0 ORDER BY key

-- name: last_seq
SELECT coalesce(max(seq), 0) AS seq FROM outbox WHERE uid = :uid

-- name: set_owner
UPDATE desired SET source = :source, conflict = :conflict WHERE key = :key
