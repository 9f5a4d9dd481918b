#!/bin/sh
# Install what the browser tests need and is missing: Chromium, Firefox, and npm for axe-core. Needs Debian's apt-get and root.
set -eu
missing() { ! command -v "$1" >/dev/null 2>&1; }

packages=
if missing chromium && missing google-chrome; then packages="$packages chromium"; fi
if missing firefox-esr && missing firefox; then packages="$packages firefox-esr"; fi
if missing npm; then packages="$packages npm"; fi
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || missing apt-get; then
  echo "missing:$packages. hint: install them; tests that need them are skipped"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
{ apt-get update -qq && timeout 600 apt-get install -y -qq --no-install-recommends $packages; } >/dev/null \
  || echo "could not install:$packages; tests that need them are skipped"
