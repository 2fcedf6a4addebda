# Creates the bucket, and the steps' own user, who may use this bucket and nothing else.
set -eu
until mc alias set store "http://$STREETVISION_S3_ENDPOINT" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" >/dev/null; do
  sleep 2
done
mc mb --ignore-existing store/streetvision
mc version enable store/streetvision
mc admin user add store "$STREETVISION_S3_ACCESS_KEY" "$STREETVISION_S3_SECRET_KEY"
mc admin policy create store streetvision /setup/policy.json
mc admin policy attach store streetvision --user "$STREETVISION_S3_ACCESS_KEY" || true # attached already
