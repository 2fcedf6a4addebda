# Creates the bucket, its lifecycle rules, and the steps' own user, who may use this bucket and nothing else.
set -eu
cd "${0%/*}"
until mc alias set store "http://$STREETVISION_S3_ENDPOINT" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" >/dev/null; do
  sleep 2
done
mc mb --ignore-existing store/streetvision
mc version enable store/streetvision
mc ilm rule import store/streetvision <lifecycle.json # replaces the rules that were there
mc admin user add store "$STREETVISION_S3_ACCESS_KEY" "$STREETVISION_S3_SECRET_KEY"
mc admin policy create store streetvision policy.json
mc admin policy attach store streetvision --user "$STREETVISION_S3_ACCESS_KEY" || true # attached already

# What counts: the steps' user can list the bucket.
mc alias set steps "http://$STREETVISION_S3_ENDPOINT" "$STREETVISION_S3_ACCESS_KEY" "$STREETVISION_S3_SECRET_KEY" >/dev/null
mc ls steps/streetvision >/dev/null
