#!/usr/bin/env bash
# Starts a Docker engine where none runs, and makes a base image from Debian's packages where no registry is reachable.
#   images/engine.sh start DIR    prints the settings that `python -m pipelines images` and the tests read
#   images/engine.sh stop DIR     ends the engine that `start` left in DIR
# Needs root, Debian and its package mirror. Exits 0 without printing settings where no engine can run, saying why.
set -euo pipefail

usage() { echo "usage: $0 start|stop DIR" >&2; exit 2; }
give_up() { echo "no container engine: $*" >&2; exit 0; }
[ $# -eq 2 ] || usage
mkdir -p "$2"
DIR=$(cd "$2" && pwd)
LOG="$DIR/engine.log"

start_engine() {
  [ "$(id -u)" = 0 ] || give_up "starting one needs root; set DOCKER_HOST to one that runs"
  if ! command -v dockerd >/dev/null || ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || give_up "dockerd is not installed and this is not Debian"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io debootstrap; } \
      >"$LOG" 2>&1 || give_up "docker.io and debootstrap could not be installed, see $LOG"
  fi
  export DOCKER_HOST="unix://$DIR/docker.sock"
  if ! /usr/bin/docker info >/dev/null 2>&1; then
    dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" --pidfile "$DIR/docker.pid" --host "$DOCKER_HOST" \
      --storage-driver overlay2 >>"$LOG" 2>&1 </dev/null &
    for _ in $(seq 60); do
      /usr/bin/docker info >/dev/null 2>&1 && return
      sleep 0.5
    done
    give_up "dockerd did not start within 30 s, see $LOG"
  fi
}

make_base() {
  /usr/bin/docker image inspect streetvision/base:bookworm >/dev/null 2>&1 && return
  rm -rf "$DIR/rootfs"
  debootstrap --variant=minbase --include=python3,python3-venv bookworm "$DIR/rootfs" >>"$LOG" 2>&1 \
    || give_up "debootstrap failed, see $LOG"
  rm -rf "$DIR"/rootfs/var/cache/apt/archives/*.deb "$DIR"/rootfs/var/lib/apt/lists/* "$DIR"/rootfs/usr/share/doc/*
  tar -C "$DIR/rootfs" -c . | /usr/bin/docker import - streetvision/base:bookworm >>"$LOG"
  rm -rf "$DIR/rootfs"
}

case "$1" in
  start)
    if [ -n "${DOCKER_HOST:-}" ]; then
      echo "DOCKER_HOST=$DOCKER_HOST" # somebody's engine: its client and its registry are at hand, too
      exit 0
    fi
    start_engine
    make_base
    echo "DOCKER_HOST=$DOCKER_HOST"
    echo "DOCKER=/usr/bin/docker"
    echo "STREETVISION_BASE_IMAGE=streetvision/base:bookworm"
    ;;
  stop)
    [ -f "$DIR/docker.pid" ] || exit 0
    kill "$(cat "$DIR/docker.pid")"
    for _ in $(seq 60); do
      [ -f "$DIR/docker.pid" ] || break
      sleep 0.5
    done
    ;;
  *) usage ;;
esac
