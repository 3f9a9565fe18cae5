#!/usr/bin/env bash
# npm run test:s3: the store contract, kills and an end-to-end test on a real Ceph RADOS Gateway. Needs root and Debian.
# ROZEN_TEST_S3 (JSON with endpoint, accessKeyId, secretAccessKey) names another server that runs already.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${ROZEN_TEST_S3:-}" ]; then
  export CEPH_PORT=${CEPH_PORT:-7480} CEPH_DIR=${CEPH_DIR:-/tmp/rozen-ceph}
  trap 'bash test/s3/ceph.sh wipe' EXIT
  began=$SECONDS
  ROZEN_TEST_S3=$(bash test/s3/ceph.sh start)
  echo "Ceph is up after $((SECONDS - began)) s"
  export ROZEN_TEST_S3
fi
npx vitest run test/s3/real.test.ts "$@"
