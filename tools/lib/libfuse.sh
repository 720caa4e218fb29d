# shellcheck shell=bash
# A libfuse with a working passthrough API, where the system's is older: built once, as a static library, from the
# distribution's own source package of a newer release. Sourced after common.sh and apt.sh.

LIBFUSE_MINIMUM=3.17.4
LIBFUSE_PREFIX="$BUILD_DIR/libfuse"
LIBFUSE_RECIPE=1 # raise it when the way we build changes: everybody then builds anew
LIBFUSE_STAMP="$LIBFUSE_PREFIX/recipe"
LIBFUSE_FAILED="$BUILD_DIR/libfuse-failed" # holds the reason; delete it to try again at once
LIBFUSE_LOG="$BUILD_DIR/setup-libfuse.log"
ARCHIVE_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
NEWER_SUITES=(trixie forky sid)

# True when pkg-config alone, without our prefix, already finds a libfuse that will do.
system_libfuse_suffices() {
  pkg-config --atleast-version="$LIBFUSE_MINIMUM" fuse3 2>/dev/null
}

libfuse_is_built() {
  [[ -f $LIBFUSE_STAMP && $(<"$LIBFUSE_STAMP") == "$LIBFUSE_RECIPE" && -f $LIBFUSE_PREFIX/lib/libfuse3.a ]]
}

# Prints the addresses this machine's package sources use for the Debian release it runs, the likeliest first. Other
# people's archives may be among them: they hold no newer suite signed by Debian's keys, so trying them does no harm.
debian_mirrors() {
  local codename
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="$codename" '$2 == release && $3 == "main" && !seen[$1]++ {
      if ($1 ~ /\/debian\/?$/) print $1; else later[++n] = $1 }
      END { for (i = 1; i <= n; i++) print later[i] }'
}

# private_apt DIR COMMAND ARGUMENT...: an apt that keeps its lists and sources in DIR and touches nothing of the
# system's; proxies and credentials of this machine still apply.
private_apt() {
  local dir=$1 command=$2
  shift 2
  "$command" -q -o Dir::State="$dir" -o Dir::State::Lists="$dir/lists" -o Dir::State::status=/var/lib/dpkg/status \
    -o Dir::Cache="$dir/cache" -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts="$dir/none" \
    -o APT::Update::Error-Mode=any -o Acquire::Retries=2 -o Acquire::Languages=none "$@"
}

# fetch_libfuse DIR: leaves the source archive of the first new enough libfuse in DIR/source. The package lists are
# verified with Debian's keys and the archive with the lists, so a mirror cannot slip in another one.
fetch_libfuse() {
  local dir=$1 mirror suite version
  mkdir -p "$dir"/{lists/partial,cache/archives/partial,none,source}
  while read -r mirror; do
    for suite in "${NEWER_SUITES[@]}"; do
      printf 'deb-src [signed-by=%s] %s %s main\n' "$ARCHIVE_KEYRING" "$mirror" "$suite" >"$dir/sources.list"
      private_apt "$dir" apt-get update || private_apt "$dir" apt-get update || continue
      version=$(private_apt "$dir" apt-cache showsrc --only-source fuse3 | sed -n 's/^Version: //p' | sort -V | tail -n 1)
      printf 'suite %s has libfuse %s\n' "$suite" "${version:-none}"
      if [[ -n $version ]] && dpkg --compare-versions "$version" ge "$LIBFUSE_MINIMUM"; then
        (cd "$dir/source" && chmod 777 . && private_apt "$dir" apt-get source --download-only --tar-only "fuse3=$version")
        return
      fi
    done
  done < <(debian_mirrors)
  printf 'no suite of this machine'\''s Debian mirror has libfuse %s or newer\n' "$LIBFUSE_MINIMUM"
  return 1
}

# make_libfuse DIR: builds what fetch_libfuse left and puts it into our prefix.
make_libfuse() {
  local dir=$1
  fetch_libfuse "$dir" || return
  mkdir "$dir/tree" &&
    tar -xf "$dir"/source/fuse3_*.orig.tar.* -C "$dir/tree" --strip-components=1 --no-same-owner || return
  # The library runs fusermount3 from its prefix, and a root daemon must not look for it below a build folder: so the
  # prefix is /usr, and only the pkg-config file is told where things really are.
  CCACHE_DISABLE=1 meson setup "$dir/build" "$dir/tree" --prefix=/usr --sysconfdir=/etc --libdir=lib --buildtype=release \
    -Ddefault_library=static -Db_pie=true -Dexamples=false -Dtests=false -Dutils=false -Duseroot=false \
    -Denable-io-uring=false &&
    CCACHE_DISABLE=1 ninja -C "$dir/build" -j "$(build_jobs)" &&
    DESTDIR="$dir/out" meson install -C "$dir/build" || return
  sed -i 's|^prefix=.*|prefix=${pcfiledir}/../..|' "$dir/out/usr/lib/pkgconfig/fuse3.pc" &&
    rm -rf "$LIBFUSE_PREFIX" && mkdir -p "$BUILD_DIR" && cp -r "$dir/out/usr" "$LIBFUSE_PREFIX" &&
    cp "$dir/tree/LGPL2.txt" "$LIBFUSE_PREFIX/" &&
    printf '%s\n' "$LIBFUSE_RECIPE" >"$LIBFUSE_STAMP"
}

# ensure_libfuse: whatever happens, there is some libfuse to build with afterwards; without passthrough if need be.
ensure_libfuse() {
  local dir started status=0
  if system_libfuse_suffices || libfuse_is_built; then
    return 0
  fi
  if [[ -n $(find "$LIBFUSE_FAILED" -mmin -1440 2>/dev/null) ]] && pkg-config --exists fuse3; then
    warn "$(<"$LIBFUSE_FAILED"); trying again tomorrow, or when you delete build/${LIBFUSE_FAILED##*/}"
    return 0
  fi
  ensure_packages meson ninja-build xz-utils
  say "Building libfuse (passthrough needs $LIBFUSE_MINIMUM, $(libfuse_found))"
  started=$(now_ms)
  dir=$(mktemp -d)
  chmod 755 "$dir" # apt fetches as its own user
  logged "$LIBFUSE_LOG" make_libfuse "$dir" || status=$?
  rm -rf "$dir" "$LIBFUSE_FAILED"
  if ((status == 0)); then
    note "libfuse $(PKG_CONFIG_PATH=$LIBFUSE_PREFIX/lib/pkgconfig pkg-config --modversion fuse3) is in build/libfuse after $(seconds_since "$started")"
    return 0
  fi
  rm -rf "$LIBFUSE_PREFIX"
  ensure_packages libfuse3-dev
  printf 'libfuse %s it is: all works, but sealed files are served through the page cache, not by passthrough (%s)' \
    "$(pkg-config --modversion fuse3)" "$(grep -v '^ *$' "$LIBFUSE_LOG" | tail -n 1)" >"$LIBFUSE_FAILED"
  warn "$(<"$LIBFUSE_FAILED")"
}

libfuse_found() {
  printf 'this system has %s' "$(pkg-config --modversion fuse3 2>/dev/null || echo none)"
}
