#!/usr/bin/env bash
# Packages of another Debian release, unpacked into a folder; the system's own and its lists stay as they are.
# usage: debian-packages.sh RELEASE FOLDER PACKAGE...
set -euo pipefail
release=$1 folder=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/lists/partial" "$work/cache/archives/partial"
# The mirror that this machine takes Debian's packages from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$work/list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root)
cd "$work"
"${apt[@]}" update
"${apt[@]}" download "$@"
for package in *.deb; do dpkg-deb -x "$package" "$folder"; done
