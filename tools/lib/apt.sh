# shellcheck shell=bash
# Installing Debian packages without surprises: nothing to do costs milliseconds, a busy lock is waited for,
# a failed download is tried once more. Sourced after common.sh.

APT_LOCK_SECONDS=600
APT_LOG="$BUILD_DIR/setup-apt.log"

# packages_missing NAME...: prints those that are not installed.
packages_missing() {
  local installed name
  # dpkg-query fails when it knows one of them not at all, and still lists the others.
  installed=$({ dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } |
    sed -n 's/^installed //p')
  for name in "$@"; do
    grep -qxF -- "$name" <<<"$installed" || printf '%s\n' "$name"
  done
}

# packages_known NAME...: true when apt's lists, as they are, lead to an installation of all of them.
packages_known() { apt-get -qq -s install --no-install-recommends "$@" >/dev/null 2>&1; }

# apt_get ARGUMENT...: apt-get as root, patient with locks. DPkg::Lock::Timeout covers dpkg's own locks only, and
# says nothing while it waits; those of the package lists and of the download folder are waited for here.
apt_get() {
  local deadline=$((SECONDS + APT_LOCK_SECONDS)) patience=0 output holder status
  mkdir -p "$BUILD_DIR"
  while true; do
    status=0
    output=$(($(stat -c %s -- "$APT_LOG" 2>/dev/null || echo 0) + 1))
    printf '### apt-get %s\n' "$*" >>"$APT_LOG"
    as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q \
      -o DPkg::Lock::Timeout="$patience" -o Acquire::Retries=2 "$@" >>"$APT_LOG" 2>&1 </dev/null || status=$?
    holder=$(tail -c "+$output" -- "$APT_LOG" | sed -n 's/^E: \(Could not get lock [^(]*\).*/\1/p' | head -n 1)
    if ((status == 0 || SECONDS >= deadline)) || [[ -z $holder ]]; then
      return "$status"
    fi
    ((patience > 0)) || note "waiting for another package manager to finish: ${holder% - open }"
    patience=$APT_LOCK_SECONDS
    sleep 1
  done
}

# ensure_packages NAME...: installs those that are missing, or ends the script with what to do.
ensure_packages() {
  local -a missing
  mapfile -t missing < <(packages_missing "$@")
  ((${#missing[@]} > 0)) || return 0
  if ((EUID != 0)) && ! has sudo; then
    die "these packages are missing: ${missing[*]}; install them as root with 'apt-get install ${missing[*]}', or run this script as root"
  fi
  has apt-get || die "these packages are missing: ${missing[*]}; this is not a Debian system, so install their equivalents by hand"

  say "Installing ${#missing[@]} packages: ${missing[*]}"

  if ! packages_known "${missing[@]}"; then
    # A dead third-party source makes update fail although all we need has arrived: install will tell.
    apt_get update || warn "'apt-get update' reported errors; see $APT_LOG"
  fi
  if apt_get install -y --no-install-recommends "${missing[@]}"; then
    return 0
  fi
  # Old lists name versions that the mirror has dropped; a mirror may also have had a bad moment.
  note "the installation failed; trying once more with fresh package lists"
  sleep 2
  apt_get update || warn "'apt-get update' reported errors; see $APT_LOG"
  if ! apt_get install -y --no-install-recommends "${missing[@]}"; then
    tail -n 20 "$APT_LOG" >&2
    die "apt-get could not install ${missing[*]}; its output is in $APT_LOG"
  fi
}
