#!/usr/bin/env bash
# Set up rsd2 in .venv of the repository root. Run it again at any time: it does only what is
# missing, and continues where an interrupted run stopped.
#
#   bash tools/setup_env.sh
#   PYTHON=/path/to/python3.12 bash tools/setup_env.sh     # choose the Python (3.10 to 3.13)
#   RSD2_BUILD_OPS=0 bash tools/setup_env.sh               # compile nothing (setup.py has more)
#
# No Python package outside .venv is touched.
set -Eeuo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
VENV_PYTHON="$VENV/bin/python"
STAMP="$VENV/rsd2.stamp"           # written last: what was installed
HOME_FILE="$VENV/rsd2.root"        # where the environment was made; scripts in it hold that path
NEEDED_GB=9                        # of a fresh environment with pip's temporary files
STEP="starting"

# Settings that would send packages elsewhere, or let packages from elsewhere in.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIRE_VIRTUALENV PIP_NO_DEPS PIP_DRY_RUN
unset PYTHONPATH PYTHONHOME PYTHONUSERBASE PYTHONSTARTUP
export PIP_USER=0 PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "setup_env: $*"; }
die() {
    trap - ERR
    printf '%s\n' "setup_env: $*" >&2
    exit 1
}
free_gb() { df -Pk "$1" | awk 'NR == 2 { printf "%d", $4 / 1048576 }'; }

on_error() {
    local free
    free="$(free_gb "$ROOT")"
    printf '\n%s\n' "setup_env: stopped while $STEP; the message is above." >&2
    if [ "$free" -lt 1 ]; then
        printf '%s\n' "setup_env: the disk of $ROOT is full ($free GB free)." >&2
    fi
    printf '%s\n' "setup_env: no package outside .venv was touched; run it again and it continues." >&2
}
trap on_error ERR
trap 'printf "\n%s\n" "setup_env: interrupted while $STEP; run it again and it continues." >&2; exit 130' INT TERM

# --- Python -----------------------------------------------------------------------------------

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

is_supported() {
    case "$(python_version "$1" || true)" in
        3.10 | 3.11 | 3.12 | 3.13) return 0 ;;
        *) return 1 ;;
    esac
}

choose_python() { # sets BASE_PYTHON
    local name version
    if [ -n "${PYTHON:-}" ]; then
        version="$(python_version "$PYTHON" || true)"
        is_supported "$PYTHON" || die "rsd2 needs Python 3.10 to 3.13; PYTHON=$PYTHON is" \
            "${version:-not a Python that runs}. Name another one: PYTHON=/path/to/python3.12 bash tools/setup_env.sh"
        BASE_PYTHON="$PYTHON"
        return
    fi
    for name in python3 python3.12 python3.11 python3.13 python3.10; do
        if is_supported "$name"; then
            BASE_PYTHON="$name"
            return
        fi
    done
    version="$(python_version python3 || true)"
    die "rsd2 needs Python 3.10 to 3.13, and none is on PATH (python3 is ${version:-missing})." \
        "Install one, or name it: PYTHON=/path/to/python3.12 bash tools/setup_env.sh"
}

# --- Environment ------------------------------------------------------------------------------

check_requested_python() { # PYTHON= must not silently give way to an environment that exists
    [ -n "${PYTHON:-}" ] || return 0
    local wanted present
    wanted="$(python_version "$PYTHON" || true)"
    present="$(python_version "$VENV_PYTHON" || true)"
    [ -z "$present" ] || [ "$wanted" = "$present" ] ||
        die "$VENV is made of Python $present, PYTHON= asks for ${wanted:-one that does not run};" \
            "remove the folder $VENV first."
}

is_usable() { # the environment runs, has pip, and was not copied or moved here
    [ -x "$VENV_PYTHON" ] && "$VENV_PYTHON" -c 'import pip' 2>/dev/null &&
        [ "$(cat "$HOME_FILE" 2>/dev/null)" = "$VENV" ]
}

make_environment() {
    is_usable && return 0
    STEP="making the virtual environment"
    choose_python
    "$BASE_PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$BASE_PYTHON has no venv module. On Debian and Ubuntu: apt install python3-venv." \
            "Or name another Python: PYTHON=/path/to/python3.12 bash tools/setup_env.sh"
    local free
    free="$(free_gb "$ROOT")"
    [ "$free" -ge "$NEEDED_GB" ] ||
        die "the disk of $ROOT has $free GB free; PyTorch and the rest need about $NEEDED_GB GB."
    say "making $VENV with Python $(python_version "$BASE_PYTHON")"
    "$BASE_PYTHON" -m venv --clear "$VENV"
    printf '%s\n' "$VENV" >"$HOME_FILE"
}

refuse_redirection() { # the same settings, in the user's pip configuration file
    local line
    line="$("$VENV_PYTHON" -m pip config list 2>/dev/null |
        grep -E '^(global|install)\.(target|prefix|root)=' | head -n 1 || true)"
    [ -z "$line" ] || die "pip's configuration sends packages elsewhere ($line);" \
        "take that line out, or run with PIP_CONFIG_FILE=/dev/null."
}

# A run that was killed can leave packages half-written: pip takes a package for installed once its
# METADATA is there, but writes RECORD last. Without its record a package is installed anew.
remove_half_installed() {
    "$VENV_PYTHON" - <<'PY'
import pathlib, shutil, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
for info in site.glob("*.dist-info"):
    record = info / "RECORD"
    if not record.is_file() or record.stat().st_size == 0:
        print(f"setup_env: {info.name} is half-installed; installing it anew")
        shutil.rmtree(info)
for leftover in site.glob("~*"):
    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
PY
}

# --- What is installed ------------------------------------------------------------------------

# All that the installation is made from: lists of packages, sources of the operators, compilers, and
# whether the compiled library is there.
fingerprint() {
    (
        cd "$ROOT"
        cat requirements.txt rsd2/commands/install_detectron2.py setup.py pyproject.toml
        find rsd2/ops/csrc -type f | LC_ALL=C sort | xargs cat
        printf '%s\n' "${RSD2_BUILD_OPS:-} ${FORCE_CUDA:-} ${TORCH_CUDA_ARCH_LIST:-}"
        command -v "${CXX:-c++}" || true
        command -v nvcc || true
        ls rsd2/ops/_C*.so 2>/dev/null || true
    ) |
        "$VENV_PYTHON" -c 'import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), "%d.%d" % sys.version_info[:2])'
}

is_complete() { # quick: every pinned package is there in its version, and rsd2 and Detectron2 too
    [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ] || return 1
    (cd / && "$VENV_PYTHON" - "$ROOT/requirements.txt" <<'PY'
import importlib.metadata, importlib.util, sys
from pip._vendor.packaging.requirements import Requirement
lines = (line.split("#")[0].strip() for line in open(sys.argv[1], encoding="utf-8"))
for requirement in map(Requirement, filter(None, lines)):
    if requirement.marker is None or requirement.marker.evaluate():
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            sys.exit(1)
        if not requirement.specifier.contains(version, prereleases=True):
            sys.exit(1)
found = [importlib.util.find_spec(name) for name in ("rsd2", "detectron2")]
sys.exit(any(spec is None or spec.origin is None for spec in found))
PY
    )
}

install_everything() {
    local quiet=()
    [ -t 1 ] || quiet=(--quiet --progress-bar off)
    rm -f "$STAMP"
    remove_half_installed
    STEP="installing the requirements"
    say "installing the packages of requirements.txt (PyTorch is large: minutes the first time)"
    "$VENV_PYTHON" -m pip install "${quiet[@]+"${quiet[@]}"}" -r "$ROOT/requirements.txt"
    STEP="installing Detectron2"
    "$VENV_PYTHON" "$ROOT/tools/install_detectron2.py"
    STEP="installing rsd2 and compiling its operators"
    if [ "${RSD2_BUILD_OPS:-}" != 0 ] && command -v "${CXX:-c++}" >/dev/null; then
        say "compiling the operators of rsd2 (a minute or two)"
    else
        say "no C++ compiler is used: the operators of rsd2 will run as plain PyTorch"
    fi
    rm -f "$ROOT"/rsd2/ops/_C*.so
    "$VENV_PYTHON" -m pip install --quiet --no-build-isolation --no-deps -e "$ROOT"
    STEP="checking the result"
    (cd / && "$VENV_PYTHON" -c 'import rsd2, torch, torchvision, cv2, detectron2')
    fingerprint >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
}

check_requested_python
make_environment
refuse_redirection
if is_complete; then
    say "up to date"
else
    install_everything
fi
STEP="reporting"
(cd / && "$VENV_PYTHON" -m rsd2.env)
say "ready; use it with: source .venv/bin/activate"
