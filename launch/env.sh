# shellcheck shell=bash
# Sourced by the scripts of this folder and by .ci/run: where things are, what mpirun asks of root.
# Downloads and what is made from them are kept in tessera_cache, shared by all clones.

tessera_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tessera_cache=${XDG_CACHE_HOME:-$HOME/.cache}/tessera

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# Makes the Python environment $1, of launch/$1.txt, in the cache where it is missing; $2 is what that installs, the rest are options of pip.
# Sets `venv` to its folder.
python_environment() {
  local name=$1 words=$2 wanted=$tessera_root/launch/$1.txt lock
  shift 2
  venv=$tessera_cache/$name
  mkdir -p "$tessera_cache"
  exec {lock}>"$tessera_cache/$name.lock"
  flock "$lock"
  # complete.txt is copied last: it says that all of it is there, and for which list.
  if ! cmp -s "$wanted" "$venv/complete.txt" || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "$name: installing $words into $venv"
    python3 -m venv --clear "$venv" >&2 &&
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" -r "$wanted" >&2 &&
      cp "$wanted" "$venv/complete.txt" || return
  fi
  exec {lock}>&-
}

# Prints the path of a program of launch/tools.txt, which is fetched into the cache where it is missing.
tool() {
  local venv
  python_environment tools "programs that run tests, check and pack" --no-deps --require-hashes || die "cannot install $1; get it by cargo install"
  echo "$venv/bin/$1"
}

# Prints the path of an archive of a small Debian (bookworm unless another is named), which debootstrap makes in the cache where it is missing.
debian() {
  local suite=${1:-bookworm} archive root
  archive=$tessera_cache/debian-$suite.tar
  if [[ ! -f $archive ]]; then
    command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
    say "debian: making $archive"
    mkdir -p "$tessera_cache"
    root=$(mktemp -d)
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" >&2 || die "debootstrap failed"
    tar -C "$root" -cf "$archive.$$" . && mv "$archive.$$" "$archive"
    rm -rf "$root"
  fi
  echo "$archive"
}

# Makes a root folder of a Debian at $1 (bookworm unless $2 names another), with this machine's way to the registries.
make_root() {
  local root=$1 archive file
  ((EUID == 0)) || die "a root folder of its own takes root"
  archive=$(debian "${2:-bookworm}")
  mkdir "$root"
  tar -C "$root" -xf "$archive"
  for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [[ ! -e $file ]] || install -D -m 644 "$file" "$root$file"
  done
  cp -n /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
}

# The same with Rust, as rustup would leave it, less what is not its own, and with a clone of what is committed here.
make_root_with_rust() {
  local root=$1 config=${CARGO_HOME:-$HOME/.cargo}/config.toml
  make_root "$@"
  cp -r "$(rustc --print sysroot)"/{bin,lib} "$root/usr/local/"
  [[ ! -e $config ]] || install -D -m 644 "$config" "$root/root/.cargo/config.toml"
  git clone -q "$tessera_root" "$root/root/tessera"
}

# Runs a command in the root folder $1, with mounts and processes of its own, so that all of them end with it.
in_root() {
  local root=$1 name variables
  shift
  variables=(HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
  for name in SSL_CERT_FILE CARGO_HTTP_CAINFO PIP_CERT http_proxy https_proxy no_proxy; do
    [[ -z ${!name:-} ]] || variables+=("$name=${!name}")
  done
  unshare --mount --pid --fork --kill-child bash -euc '
    root=$1
    shift
    mount --rbind /dev "$root/dev"
    mount -t sysfs none "$root/sys"
    mount -t proc none "$root/proc"
    exec chroot "$root" env -i "$@"
  ' bash "$root" "${variables[@]}" "$@"
}

# A target folder outside the clone outlives it, and spares it the minutes of torch-sys' C++.
# cargo compiles that anew when LIBTORCH changes, so there it must not name the clone.
if [[ -z ${CARGO_TARGET_DIR:-} ]]; then
  if [[ -d $tessera_cache/target ]]; then
    CARGO_TARGET_DIR=$tessera_cache/target
    if [[ -z ${LIBTORCH:-} && -e $tessera_root/.libtorch ]]; then
      LIBTORCH=$(readlink -f "$tessera_root/.libtorch")
      export LIBTORCH
    fi
  else
    CARGO_TARGET_DIR=$tessera_root/target
  fi
fi
export CARGO_TARGET_DIR
# Cargo goes by the times of files. Of two clones that share a folder the older one would be given what was built of the
# other, so in a clone that has not built last all files that differ are made newer.
tessera_built=$CARGO_TARGET_DIR/clone
if [[ $CARGO_TARGET_DIR == "$tessera_cache/target" && $(cat "$tessera_built" 2>/dev/null) != "$tessera_root" ]]; then
  python3 "$tessera_root/launch/times.py" "$(cat "$tessera_built" 2>/dev/null || echo none)" "$tessera_root" "$tessera_built.files" ||
    find "$tessera_root/crates" "$tessera_root/tests" -name '*.rs' -exec touch {} +
  echo "$tessera_root" >"$tessera_built"
fi

# The Python with which tests read what we write; launch/python.sh makes it.
if [[ -z ${TESSERA_PYTHON:-} && -e $tessera_cache/python/complete.txt ]]; then
  export TESSERA_PYTHON=$tessera_cache/python/bin/python
fi
# The Python with the libraries that exports are for; launch/interop.sh makes it.
if [[ -z ${TESSERA_INTEROP:-} && -e $tessera_cache/interop/complete.txt ]]; then
  export TESSERA_INTEROP=$tessera_cache/interop/bin/python
fi

# Open MPI refuses to run as root, as in a container, unless it is told twice (4.x, then 5.x).
if ((EUID == 0)); then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
