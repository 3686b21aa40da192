#!/bin/sh
# Writes docker/secrets/: random passwords for compose.yaml. Never over those that are in use.
set -eu
cd "$(dirname "$0")"

if [ -e secrets ]; then
  echo "new_secrets: $PWD/secrets is there already: the stores were made with its passwords" >&2
  exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
trap 'rm -rf secrets.partial' EXIT
rm -rf secrets.partial
# Nobody else enters the folder; the files are read in containers, whose users have other ids.
mkdir -m 700 secrets.partial
umask 022
for name in database_password s3_access_key s3_secret_key admin_password session_key serve_password; do
  random >"secrets.partial/$name"
done
cat >secrets.partial/s3_identities <<END
{"identities": [{
  "name": "mlflow",
  "credentials": [{
    "accessKey": "$(cat secrets.partial/s3_access_key)",
    "secretKey": "$(cat secrets.partial/s3_secret_key)"
  }],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}
END
cat >secrets.partial/serve.env <<END
XCFLOW_SERVE_TOKEN=$(random)
MLFLOW_TRACKING_USERNAME=serve
MLFLOW_TRACKING_PASSWORD=$(cat secrets.partial/serve_password)
END
mv secrets.partial secrets
echo "new_secrets: $PWD/secrets; MLflow's user is admin, its password in admin_password" >&2
