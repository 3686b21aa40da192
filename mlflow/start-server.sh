#!/bin/sh
# Start the tracking server on PostgreSQL and S3, with users. README.md beside this file says what
# each variable means.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

refuse() {
    echo "start-server.sh: $1" >&2
    exit 2
}

# Secrets may be given by a file, as containers mount them: NAME_FILE instead of NAME.
for name in PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY \
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        [ -r "$file" ] || refuse "${name}_FILE: $file cannot be read"
        export "$name=$(cat "$file")"
    fi
done

missing=
require() { # NAME WHAT [LENGTH]
    eval "value=\${$1:-}"
    if [ -z "$value" ]; then
        echo "start-server.sh: $1 is not set: $2" >&2
        missing=yes
    elif [ ${#value} -lt "${3:-1}" ]; then
        echo "start-server.sh: $1 is too short: at least $3 characters" >&2
        missing=yes
    fi
}
require PGHOST "the host of PostgreSQL"
require PGDATABASE "the database, which must exist"
require PGUSER "the database's user"
require MLFLOW_ARTIFACTS_DESTINATION "where files go, as in s3://bucket/mlflow"
require MLFLOW_AUTH_ADMIN_PASSWORD "the password that the user admin gets at the first start" 12
require MLFLOW_FLASK_SERVER_SECRET_KEY "any random text, the same for all servers" 16
require MLFLOW_SERVER_ALLOWED_HOSTS \
    "the names by which clients call the server, as in mlflow.example.org,mlflow:5000"
[ -z "$missing" ] || exit 2

set -a
# shellcheck source=mlflow/server.env
. "$here/server.env"
MLFLOW_BACKEND_STORE_URI=postgresql+psycopg2:// # libpq's variables say where
MLFLOW_AUTH_CONFIG_PATH=${MLFLOW_AUTH_CONFIG_PATH:-$here/basic_auth.ini}
MLFLOW_HOST=${MLFLOW_HOST:-0.0.0.0}
MLFLOW_PORT=${MLFLOW_PORT:-5000}
MLFLOW_WORKERS=${MLFLOW_WORKERS:-2}
set +a

python "$here/prepare_database.py"
exec python -m mlflow server --app-name basic-auth
