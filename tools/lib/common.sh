# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this
# What every script here shares: where the project is, how we speak, how we become root. Sourced, not run.

# An inherited search path or locale would change what the commands we parse print.
unset CDPATH
export LC_ALL=C.UTF-8

PROJECT_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD_DIR="$PROJECT_DIR/build"

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  BOLD=$'\e[1m' GREEN=$'\e[32m' YELLOW=$'\e[33m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  BOLD='' GREEN='' YELLOW='' RED='' PLAIN=''
fi

say() { printf '%s\n' "${BOLD}==>${PLAIN} $*"; }
note() { printf '%s\n' "    $*"; }
warn() { printf '%s\n' "${YELLOW}warning:${PLAIN} $*" >&2; }
die() {
  printf '%s\n' "${RED}error:${PLAIN} $*" >&2
  exit 1
}

# The comment block at the top of a script is its help text.
print_help() { sed -n '2,/^$/{s/^# \{0,1\}//p}' "$1"; }

has() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: runs it as root, with sudo where we are not root.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif has sudo; then
    sudo -- "$@"
  else
    return 126
  fi
}

# Milliseconds since the epoch.
now_ms() { printf '%s' "$(($(date +%s%N) / 1000000))"; }

# seconds_since MS: how long ago that was, as "12.3 s".
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# logged LOG COMMAND...: the output goes to LOG; on failure its end is shown and the status returned.
logged() {
  local log=$1 status=0
  shift
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if ((status != 0)); then
    tail -n 40 "$log" >&2
    warn "'$1' failed with status $status; all of its output is in $log"
  fi
  return "$status"
}

# The jobs a build may run at once: all cores, but at least 1.5 GiB of memory for each compiler.
build_jobs() {
  local cores memory_kib jobs
  cores=$(nproc)
  memory_kib=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
  jobs=$((${memory_kib:-1572864} / 1572864))
  ((jobs < 1)) && jobs=1
  ((jobs > cores)) && jobs=$cores
  printf '%s' "$jobs"
}
