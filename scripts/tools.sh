# Checks what a machine needs to set up libtorch and build the program. Sourced by the scripts beside it.

# Prints one line for each missing tool, with its fix.
missing_tools() {
    local platform glibc
    platform="$(uname -s) $(uname -m)"
    if [[ $platform != "Linux x86_64" ]]; then
        echo "this machine is $platform, but oss-run needs Linux x86_64; build it there or in a container"
        return
    fi
    glibc="$(getconf GNU_LIBC_VERSION 2>/dev/null || true)"
    if [[ -z $glibc ]]; then
        echo "the C library is not glibc, which PyTorch's binaries need; use a glibc distribution (Debian, Fedora, ...)"
    elif ! at_least 2.28 "${glibc#glibc }"; then
        echo "$glibc is older than the 2.28 that PyTorch's binaries need; use a newer distribution or container"
    fi
    if ! command -v cargo >/dev/null; then
        echo "cargo is not installed; get Rust from https://rustup.rs and open a new shell"
    fi
    if ! command -v "${CXX:-c++}" >/dev/null; then
        echo "no C++ compiler (${CXX:-c++}); install one, for example: sudo apt install build-essential"
    fi
    if ! command -v python3 >/dev/null; then
        echo "python3 is not installed (needed only to download libtorch); for example: sudo apt install python3 python3-pip"
    elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
        echo "$(python3 --version) is older than 3.8; install a newer python3 and put it first in PATH"
    elif ! python3 -m pip --version >/dev/null 2>&1; then
        echo "python3 has no pip (needed only to download libtorch); for example: sudo apt install python3-pip"
    fi
}

# at_least MINIMUM VERSION: succeeds if VERSION is MINIMUM or newer.
at_least() {
    [[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" == "$1" ]]
}

# The libraries for this machine: `cuda` with a working NVIDIA driver, else `cpu`; CUDA=0|1 overrides.
libtorch_variant() {
    case "${CUDA:-auto}" in
    0) echo cpu ;;
    1) echo cuda ;;
    auto) if nvidia-smi >/dev/null 2>&1; then echo cuda; else echo cpu; fi ;;
    *)
        echo "error: CUDA=$CUDA is neither 0 nor 1; unset it to detect a GPU" >&2
        return 1
        ;;
    esac
}
