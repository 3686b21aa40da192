#!/bin/sh
# Prints the secrets that this overlay needs, with keys and passwords drawn at random. Once:
#
#     deploy/overlays/dev/secrets.sh | kubectl apply -f -
#
# Drawn again, they no longer fit the databases that were made with the first ones.
set -eu

draw() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

secret() { # NAMESPACE NAME KEY=VALUE...
    namespace=$1 name=$2
    shift 2
    for pair in "$@"; do
        set -- "$@" "--from-literal=$pair"
        shift
    done
    echo ---
    kubectl create secret generic "$name" --namespace "$namespace" --dry-run=client -o yaml "$@"
}

user() { echo "username=$1"; }

identity() { # NAME SECRET ACTIONS
    printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' \
        "$1" "$1" "$2" "$3"
}

mlflow_s3=$(draw) trigger_s3=$(draw) pipeline_s3=$(draw) pipeline_password=$(draw)
all='"Admin", "Read", "Write", "List", "Tagging"'
identities="{\"identities\": [
$(identity mlflow "$mlflow_s3" "$all"),
$(identity trigger "$trigger_s3" '"Read", "List"'),
$(identity pipeline "$pipeline_s3" "$all")
]}"

secret xcflow seaweedfs-identities "s3.json=$identities"
secret xcflow mlflow-database "$(user mlflow)" "password=$(draw)"
secret xcflow mlflow-s3 access-key=mlflow "secret-key=$mlflow_s3"
secret xcflow mlflow-admin "password=$(draw)" "secret-key=$(draw)"
secret xcflow xcflow-serving-token "token=$(draw)"
secret xcflow xcflow-serving-tracking "$(user serving)" "password=$(draw)"
secret xcflow xcflow-trigger-tracking "$(user trigger)" "password=$(draw)"
secret xcflow xcflow-trigger-s3 access-key=trigger "secret-key=$trigger_s3"
secret xcflow xcflow-pipeline-tracking "$(user pipeline)" "password=$pipeline_password"
secret xcflow-pipelines xcflow-pipeline-tracking "$(user pipeline)" "password=$pipeline_password"
secret xcflow-pipelines xcflow-pipeline-s3 access-key=pipeline "secret-key=$pipeline_s3"
