-- What the roles of docker/postgres/roles.sql may do, where they are there. Run after each migration.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'windlass_daemon') THEN
        GRANT USAGE ON SCHEMA windlass TO windlass_daemon;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA windlass TO windlass_daemon;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA windlass TO windlass_daemon;
        -- What has happened stays: the log of events loses nothing, and only its mark changes.
        REVOKE UPDATE, DELETE ON history, outbox, schema_version FROM windlass_daemon;
        REVOKE INSERT ON schema_version FROM windlass_daemon;
        GRANT UPDATE (published_at) ON outbox TO windlass_daemon;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'windlass_reader') THEN
        GRANT USAGE ON SCHEMA windlass TO windlass_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA windlass TO windlass_reader;
    END IF;
END $$;
