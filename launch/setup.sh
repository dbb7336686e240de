#!/usr/bin/env bash
# Installs what a build and a run need besides Rust: Open MPI, libclang, a C++ compiler and nasm from
# the system's packages, and libtorch 2.11.0 out of its Python wheels. Run it as often as you like.
#
#   launch/setup.sh [--cpu|--cuda]
#
# Without an option, libtorch comes with CUDA where an NVIDIA driver is loaded. A LIBTORCH in the
# environment is used as it is.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

case ${1:-} in
  --cpu) kind=cpu ;;
  --cuda) kind=cuda ;;
  '') # What was chosen before stays.
    case $(readlink "$tessera_root/.libtorch" || true) in
      */libtorch-2.11.0-cpu) kind=cpu ;;
      */libtorch-2.11.0-cuda/torch) kind=cuda ;;
      *) if [[ -e /proc/driver/nvidia/version ]]; then kind=cuda; else kind=cpu; fi ;;
    esac
    ;;
  *) die "unknown option $1; usage: launch/setup.sh [--cpu|--cuda]" ;;
esac

has() { command -v "$1" >/dev/null; }
# libclang-cpp, which is often there without it, is another library.
has_libclang() {
  [[ -n ${LIBCLANG_PATH:-} ]] && return
  local folder name
  for folder in '/usr/lib*/llvm*/lib*' '/usr/lib*' '/usr/lib/*'; do
    for name in 'libclang.so*' 'libclang-[0-9]*.so*'; do
      compgen -G "$folder/$name" && return
    done
  done
  return 1
}
# Debian's python3 comes without pip, which fetches libtorch, and ensurepip, which a venv needs.
has_module() { python3 -c "import importlib.util as u; exit(not u.find_spec('$1'))" 2>/dev/null; }

system_packages() {
  local missing=()
  has mpicc || missing+=(libopenmpi-dev)
  has mpirun || missing+=(openmpi-bin)
  has_libclang >/dev/null || missing+=(libclang-dev)
  has g++ || missing+=(g++)
  has make || missing+=(make)
  has pkg-config || missing+=(pkg-config)
  # libjpeg-turbo's vector code, for a JPEG in two thirds of the time; it builds without, too.
  has nasm || missing+=(nasm)
  has python3 || missing+=(python3)
  has_module pip || missing+=(python3-pip)
  has_module ensurepip || missing+=(python3-venv)
  # Tests make films and decode them.
  if [[ -n ${TESSERA_TESTS:-} ]]; then
    has ffmpeg || missing+=(ffmpeg)
    # Several hosts on one machine: launch/test-hosts.sh.
    has ip || missing+=(iproute2)
    has sshd || [[ -x /usr/sbin/sshd ]] || missing+=(openssh-server)
    has ssh || missing+=(openssh-client)
    # A small Slurm: launch/test-slurm.sh.
    for package in slurmctld slurmd munge; do
      [[ -x /usr/sbin/$package || -x /usr/sbin/${package}d ]] || missing+=("$package")
    done
    has sbatch || missing+=(slurm-client)
  fi
  if [[ ${TESSERA_TESTS:-} == full ]]; then
    # Codecs of today, beside which models are measured.
    has cwebp || missing+=(webp)
    has cjxl || missing+=(libjxl-tools)
    has avifenc || missing+=(libavif-bin)
    has opusenc || missing+=(opus-tools)
    has c2enc || missing+=(codec2)
    # An image without a Docker engine: launch/test-image.sh.
    docker info >/dev/null 2>&1 || {
      has buildah || missing+=(buildah)
      has debootstrap || missing+=(debootstrap)
    }
  fi
  if ((${#missing[@]} == 0)); then
    say "system packages: all there"
    return
  fi
  has apt-get || die "no apt-get here; install by hand what Debian calls ${missing[*]}"
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if ((EUID != 0)); then
    has sudo || die "run as root or install sudo, to install ${missing[*]}"
    as_root=(sudo "${as_root[@]}")
  fi
  say "system packages: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
    die "apt-get could not install ${missing[*]}"
}

# Wheels of one Python version on every machine: only the C++ in them is used, and so the hashes
# in the requirements files hold everywhere.
wheel_options() {
  local options=(--no-deps --require-hashes --no-cache-dir --only-binary=:all: --quiet)
  options+=(--python-version 3.11 --implementation cp --abi cp311)
  local glibc
  for glibc in _2_28 _2_27 _2_25 _2_18 _2_17 _2_12 _2_5 2014 2010 1; do
    options+=(--platform "manylinux${glibc}_x86_64")
  done
  printf '%s\n' "${options[@]}"
}

# Fills the folder $1 with a libtorch for the CPU: real files only, side by side, so that the
# libraries find each other next to themselves.
make_cpu_prefix() {
  python3 -m pip download "${pip_options[@]}" -r "$tessera_root/launch/libtorch-cpu.txt" \
    --dest "$1/wheels"
  python3 - "$1" <<'PYTHON'
import pathlib, shutil, sys, zipfile

prefix = pathlib.Path(sys.argv[1])
libraries = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}
for wheel in sorted((prefix / "wheels").glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if name.endswith("/"):
                continue
            if path.parts[:2] == ("torch", "include"):
                target = prefix.joinpath(*path.parts[1:])
            elif path.name in libraries:
                libraries.remove(path.name)
                target = prefix / "lib" / path.name
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
if libraries:
    sys.exit(f"the wheels hold no {', '.join(sorted(libraries))}")
# torch-sys links -ltorch; the real one wants libtorch_cuda.so, this one leads to what is there.
(prefix / "lib" / "libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
PYTHON
  rm -r "$1/wheels"
}

# Fills the folder $1 with the wheels as they are: torch/lib finds nvidia/*/lib beside it.
make_cuda_prefix() {
  python3 -m pip install "${pip_options[@]}" -r "$tessera_root/launch/libtorch-cuda.txt" \
    --target "$1"
}

# Makes $1, the folder of a whole libtorch, unless it is there.
make_prefix() {
  local prefix=$1
  if [[ ! -d $prefix ]]; then
    [[ $(uname -sm) == "Linux x86_64" ]] ||
      die "no libtorch wheels are pinned for $(uname -sm); set LIBTORCH to a libtorch 2.11.0"
    mkdir -p "$tessera_cache"
    exec 9>"$tessera_cache/libtorch.lock"
    flock 9 # two runs at once: the second finds what the first has made
  fi
  if [[ ! -d $prefix ]]; then
    local size="530 MB"
    [[ $kind == cuda ]] && size="3 GB"
    say "libtorch 2.11.0 ($kind): downloading about $size"
    unfinished=$(mktemp -d "$prefix.XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    chmod 755 "$unfinished"
    mapfile -t pip_options < <(wheel_options)
    "make_${kind}_prefix" "$unfinished"
    sync -f "$unfinished"
    mv -T "$unfinished" "$prefix"
  fi
}

libtorch() {
  local link=$tessera_root/.libtorch prefix=$tessera_cache/libtorch-2.11.0-$kind
  if [[ -n ${LIBTORCH:-} ]]; then
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] ||
      die "LIBTORCH is $LIBTORCH, but that holds no lib/libtorch_cpu.so; unset it to get one"
    say "libtorch: $LIBTORCH, from the environment"
    return
  fi
  if [[ -d $link && ! -L $link ]]; then
    say "libtorch: $link, a folder of yours; left as it is"
    return
  fi
  make_prefix "$prefix"
  if [[ $kind == cuda ]]; then prefix+=/torch; fi
  ln -sfn "$prefix" "$link"
  say "libtorch: $prefix"
}

has cargo || die "Rust is missing; install it as https://rustup.rs says"
say "rust: $(rustc --version)"
system_packages
libtorch
