-- Every statement of the embedded store; `lock_outbox` is for databases with several writers. `-- name: NAME` starts one.

-- name: session_token
SELECT token FROM session WHERE id = 1

-- name: raise_session_token
UPDATE session SET token = token + 1 WHERE id = 1 RETURNING token

-- name: get_meta
SELECT value FROM meta WHERE key = :key

-- name: put_meta
INSERT INTO meta (key, value) VALUES (:key, :value)

-- name: plainly_declared
SELECT key, digest, resource, path, line
FROM desired
WHERE source = :source AND deleting_since IS NULL AND prune = '' AND faults = '[]' AND conflict = ''

-- name: declared
SELECT key, uid, source, generation, digest, resource, path, line, deleting_since, prune, faults,
       conflict
FROM desired
WHERE NOT (source = :source AND deleting_since IS NULL AND prune = '' AND faults = '[]' AND conflict = '')
   OR key IN (SELECT value FROM json_each(:keys))

-- name: insert_desired
INSERT INTO desired (key, kind, namespace, name, uid, source, generation, digest, resource, files,
                     revision, author, path, line, created_at, generation_at)
VALUES (:key, :kind, :namespace, :name, :uid, :source, 1, :digest, :resource, :files,
        :revision, :author, :path, :line, :now, :now)

-- name: update_desired
UPDATE desired
SET generation = generation + 1, digest = :digest, resource = :resource, files = :files,
    revision = :revision, author = :author, path = :path, line = :line, generation_at = :now,
    deleting_since = NULL, prune = '', faults = '[]'
WHERE key = :key

-- name: redeclare
UPDATE desired
SET resource = :resource, path = :path, line = :line, deleting_since = NULL, prune = '', faults = '[]'
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
INSERT OR IGNORE INTO reference (from_key, to_key) VALUES (:from_key, :to_key)

-- name: dependents
SELECT from_key FROM reference WHERE to_key = :key ORDER BY from_key

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
SELECT id, revision, faults, error, blocked, updated_at FROM source ORDER BY id

-- name: clear_blocked
UPDATE source SET blocked = '[]' WHERE id = :id

-- name: objects
SELECT d.key, d.uid, d.generation, d.digest, d.resource, d.files, d.source, d.revision, d.author,
       d.path, d.line, d.created_at, d.generation_at, d.deleting_since, d.prune, d.faults, d.conflict,
       d.suspended, d.sync_token, o.status, o.hold, o.seq,
       (SELECT json_group_array(record) FROM (SELECT record FROM external e WHERE e.uid = d.uid
                                              ORDER BY position)) AS records,
       0 AS due
FROM desired d LEFT JOIN object o ON o.uid = d.uid
WHERE (:kind IS NULL OR d.kind = :kind)
  AND (:namespace IS NULL OR d.namespace = :namespace)
ORDER BY d.kind, d.namespace, d.name

-- name: placed
SELECT key, namespace || '/' || CASE
           WHEN kind = 'Target' THEN name
           WHEN json_valid(resource) THEN coalesce(json_extract(resource, '$.spec.target'), 'local')
           ELSE 'local' END AS lane
FROM desired
ORDER BY kind, namespace, name

-- name: object_by_key
SELECT d.key, d.uid, d.generation, d.digest, d.resource, d.files, d.source, d.revision, d.author,
       d.path, d.line, d.created_at, d.generation_at, d.deleting_since, d.prune, d.faults, d.conflict,
       d.suspended, d.sync_token, o.status, o.hold, o.seq,
       (SELECT json_group_array(record) FROM (SELECT record FROM external e WHERE e.uid = d.uid
                                              ORDER BY position)) AS records,
       0 AS due
FROM desired d LEFT JOIN object o ON o.uid = d.uid
WHERE d.key = :key

-- name: guard
SELECT (SELECT token FROM session WHERE id = 1) AS token,
       (SELECT 1 FROM desired WHERE uid = :uid) AS declared,
       (SELECT deleting_since FROM desired WHERE uid = :uid) AS deleting_since,
       (SELECT seq FROM object WHERE uid = :uid) AS seq

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
SELECT 1

-- name: insert_event
INSERT INTO outbox (uid, seq, event) VALUES (:uid, :seq, :event)

-- name: events
SELECT position, event FROM outbox WHERE position > :after ORDER BY position LIMIT :limit

-- name: last_event
SELECT coalesce(max(position), 0) FROM outbox

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
    fault_revision = CASE WHEN :mended = 1 THEN 0 ELSE spoken.fault_revision END,
    faults = CASE WHEN :mended = 1 THEN '[]' ELSE spoken.faults END

-- name: speak_badly
INSERT INTO spoken (source, key, fault_revision, faults)
VALUES (:source, :key, :fault_revision, :faults)
ON CONFLICT (source, key) DO UPDATE
SET fault_revision = excluded.fault_revision, faults = excluded.faults

-- name: bad_words
SELECT faults FROM spoken INDEXED BY spoken_badly  -- or all that the source has said is read
WHERE source = :source AND fault_revision > 0 ORDER BY key

-- name: last_seq
SELECT coalesce(max(seq), 0) AS seq FROM outbox WHERE uid = :uid

-- name: set_owner
UPDATE desired SET source = :source, conflict = :conflict WHERE key = :key
