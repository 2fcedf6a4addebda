# Creates the bucket, its rules and a user for each role, and tries what each may and may not do. Safe to run again.
# Credentials come from files and go to mc's standard input: arguments can be read by whoever may list processes.
set -eu
cd "${0%/*}"
roles="data runs checkpoints registry team"
attempts=60 # every two seconds; the Job's deadline ends the rest

refuse() {
  echo "error: $*" >&2
  exit 1
}

value() { cat "$STREETVISION_CREDENTIALS/$1"; }

pair() { printf '%s\n%s\n' "$(value "$1")" "$(value "$2")"; }

for name in root/MINIO_ROOT_USER root/MINIO_ROOT_PASSWORD; do
  case $(value $name) in
  change*) refuse "${name#*/} is the example's; set your own in manifests/minio/root.env" ;;
  esac
done
seen=" $(value root/MINIO_ROOT_USER) "
for role in $roles; do
  for key in accesskey secretkey; do
    case $(value "$role/$key") in
    change*) refuse "$key of $role is the example's; set your own in manifests/base/credentials/$role.env" ;;
    ????????*) ;;
    *) [ $key = accesskey ] || refuse "secretkey of $role has fewer than 8 characters" ;;
    esac
  done
  user=$(value "$role/accesskey")
  case $seen in
  *" $user "*) refuse "accesskey of $role is also another user's; each role needs one of its own" ;;
  esac
  seen="$seen$user "
done

until pair root/MINIO_ROOT_USER root/MINIO_ROOT_PASSWORD |
  mc alias set store "$STREETVISION_MINIO_URL" >/dev/null 2>&1; do
  attempts=$((attempts - 1))
  [ $attempts -gt 0 ] ||
    refuse "no login at $STREETVISION_MINIO_URL as root: does the server run, and was root.env changed after its start?"
  sleep "${STREETVISION_RETRY_SECONDS:-2}"
done

mc mb --ignore-existing store/streetvision
# Checkpoints have no versions: deleting one frees its bytes at once. Everywhere else an overwritten or deleted object
# can be had back for 30 days.
mc version enable store/streetvision --excluded-prefixes checkpoints/
mc ilm rule import store/streetvision <lifecycle.json # replaces the rules that were there
for role in $roles; do
  pair "$role/accesskey" "$role/secretkey" | mc admin user add store >/dev/null
  mc admin policy create store "streetvision-$role" "$role.json" >/dev/null
  # Fails where it is attached already; what counts is tried below.
  mc admin policy attach store "streetvision-$role" --user "$(value "$role/accesskey")" >/dev/null 2>&1 || true
  pair "$role/accesskey" "$role/secretkey" | mc alias set "$role" "$STREETVISION_MINIO_URL" >/dev/null
done

writes() { echo tried | mc pipe "$1/streetvision/$2/.setup/tried" >/dev/null 2>&1; }

reads() { mc cat "$1/streetvision/$2/.setup/tried" >/dev/null 2>&1; }

must() { "$@" || refuse "$2 cannot do what it must: $1 $3/; see the policy streetvision-$2"; }

must_not() { ! "$@" || refuse "$2 can do what it must not: $1 $3; see the policies of this user"; }

makes() { mc admin user svcacct add "$1" "$(value "$1/accesskey")" >/dev/null 2>&1; }

for prefix in data runs checkpoints registry; do
  must writes store $prefix
done
must reads data data
must writes runs runs
must writes checkpoints checkpoints
must writes registry registry
must writes team data
must writes team registry
must reads team runs
for prefix in data runs checkpoints registry; do
  must_not writes data $prefix
done
for prefix in data runs checkpoints; do
  must_not writes registry $prefix
done
must_not writes runs data
must_not writes runs checkpoints
must_not writes runs registry
must_not reads runs checkpoints
must_not writes checkpoints data
must_not writes checkpoints runs
must_not writes checkpoints registry
must_not writes team runs
for role in $roles; do
  must_not makes "$role" "a service account"
done
for prefix in data runs checkpoints registry; do
  mc rm --recursive --force --versions "store/streetvision/$prefix/.setup" >/dev/null
done
echo "streetvision is ready"
