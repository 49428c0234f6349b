-- Roles for a Windlass database, each with no more than it needs. Run once in the database, as somebody
-- who may make roles, before the first daemon or `windlass migrate`; running it again changes nothing.
--
--     psql -d windlass -f docker/postgres/roles.sql
--
-- windlass_owner   owns the schema and runs its migrations: `windlass migrate --to` as this role
-- windlass_daemon  works: cannot change what has happened, nor the schema
-- windlass_reader  looks: for dashboards
--
-- None of them has a password, so none can log in by one yet:
--     ALTER ROLE windlass_daemon PASSWORD '...';
DO $$
DECLARE each TEXT;
BEGIN
    FOREACH each IN ARRAY ARRAY['windlass_owner', 'windlass_daemon', 'windlass_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = each) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', each);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), each);
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO windlass_owner', current_database());
END $$;

-- A query of a dashboard never holds up the daemons for long.
ALTER ROLE windlass_reader SET statement_timeout = '10s';
ALTER ROLE windlass_reader SET default_transaction_read_only = on;
