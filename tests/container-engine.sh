#!/usr/bin/env bash
# A container engine (with BuildKit and Compose) and a base image on Debian 12, as root, without a registry.
# usage: container-engine.sh start FOLDER | base FOLDER TAG | stop FOLDER      prints on start what to export
# The engine's packages are those of Debian's next release, unpacked into the folder.
set -euo pipefail
verb=$1 home=$2
unset PYTHONWARNINGS # Debian's packages run scripts of their own at installation
export PATH=$home/bin:$PATH DOCKER_HOST=unix://$home/docker.sock DOCKER_CONFIG=$home/cli

start() {
  mkdir -p "$home"/{bin,cli/cli-plugins}
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends runc iptables mmdebstrap >/dev/null
  "$(dirname "$0")/debian-packages.sh" trixie "$home/root" docker.io docker-cli containerd docker-compose docker-buildx
  cp "$home"/root/usr/sbin/dockerd "$home"/root/usr/bin/{docker,containerd,containerd-shim*} "$home/bin/"
  cp "$home"/root/usr/libexec/docker/cli-plugins/* "$home/cli/cli-plugins/"
  setsid nohup dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/docker.pid" -H "$DOCKER_HOST" \
    --userland-proxy=false --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs \
    >"$home/log" 2>&1 </dev/null &
  for _ in $(seq 100); do docker info >/dev/null 2>&1 && return; sleep 0.3; done
  cat "$home/log" >&2
  return 1
}

base() { # Debian's Python where the public slim image has its own
  local mirror
  mirror=$(awk '/^URIs/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  mmdebstrap --quiet --mode=root --variant=minbase --format=tar \
    --aptopt='Acquire::Check-Valid-Until "false"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --include=python3,python3-venv,python3-pip,ca-certificates \
    --customize-hook='for d in bin local/bin; do ln -sf /usr/bin/python3 "$1/usr/$d/python"; done; ln -sf /usr/bin/python3 "$1/usr/local/bin/python3"' \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1/etc/apt/sources.list"' \
    bookworm "$home/base.tar" "$mirror"
  docker import -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' -c 'ENV UV_SYSTEM_CERTS=1' "$home/base.tar" "$1" >/dev/null
}

stop() {
  local engine
  engine=$(cat "$home/docker.pid")
  kill "$engine"
  for _ in $(seq 100); do kill -0 "$engine" 2>/dev/null || break; sleep 0.3; done
  # It leaves its network namespace mounted, and then nobody can remove the folder.
  awk -v below="$home/" 'index($2, below) == 1 {print $2}' /proc/mounts | xargs --no-run-if-empty umount
}

case $verb in
start) start ;;
base) base "$3" ;;
stop) stop ;;
*) sed -n 2,4p "$0"; exit 2 ;;
esac
