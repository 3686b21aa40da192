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
cd secrets.partial
random >database_password
random >admin_password
random >session_key
access_key=$(random)
secret_key=$(random)
serve_password=$(random)
cat >s3_identities <<END
{"identities": [{
  "name": "mlflow",
  "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}
END
cat >s3_credentials <<END
[default]
aws_access_key_id = $access_key
aws_secret_access_key = $secret_key
END
cat >serve.env <<END
XCFLOW_SERVE_TOKEN=$(random)
MLFLOW_TRACKING_USERNAME=serve
MLFLOW_TRACKING_PASSWORD=$serve_password
END
cat >user.env <<END
XCFLOW_USER_PASSWORD=$serve_password
MLFLOW_TRACKING_USERNAME=admin
MLFLOW_TRACKING_PASSWORD=$(cat admin_password)
END
cd ..
mv secrets.partial secrets
echo "new_secrets: $PWD/secrets; MLflow's user is admin, its password in admin_password" >&2
