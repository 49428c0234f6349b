#!/bin/sh
# Run once by the database's image: the roles, and their passwords from the secrets.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f /windlass/roles.sql
for role in owner daemon; do
    # From standard input: arguments can be read by everybody on the machine.
    printf "ALTER ROLE windlass_%s PASSWORD '%s';\n" "$role" "$(cat "/run/secrets/postgres_$role")" |
        psql -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"
done
