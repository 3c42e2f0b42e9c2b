# shellcheck shell=bash
# What the scripts of this folder share: messages, and the packages that a fresh machine lacks.
# Sourced, never run. Everything is said on standard error, so that a caller's output stays its own.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repo

say() {
    printf '%s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A slip in the command line ends with 2, as the two programs do.
usage_error() {
    printf '%s: %s (%s --help tells more)\n' "${0##*/}" "$*" "${0##*/}" >&2
    exit 2
}

# The comment at the head of a script is its help.
print_help() {
    sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# The Java that runs Kafka: JAVA_HOME's, else the one of PATH; nothing when it is older than 17.
java_17() {
    local candidate version
    for candidate in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
        [[ -n $candidate && -x $candidate ]] || continue
        version=$("$candidate" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
        if [[ -n $version && $version -ge 17 ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

wanted=()

# want PACKAGE WHY TEST...: PACKAGE is installed by the next install_wanted if TEST fails.
want() {
    local package=$1 why=$2
    shift 2
    "$@" >/dev/null 2>&1 || wanted+=("$package	$why")
}

# Installs what was wanted and is missing, by name, after saying what and why. It asks first on a
# terminal; without one there is nobody to answer, and it goes ahead.
install_wanted() {
    ((${#wanted[@]})) || return 0
    local entry answer packages=() as_root=()
    say "This machine lacks:"
    for entry in "${wanted[@]}"; do
        packages+=("${entry%%	*}")
        say "  ${entry%%	*} (${entry#*	})"
    done
    wanted=()
    have apt-get || die "there is no apt-get here: install these packages, or what they are called on this system, and start again"
    if ((EUID != 0)); then
        have sudo || die "installing needs root, and there is no sudo: run as root 'apt-get install ${packages[*]}' and start again"
        as_root=(sudo)
    fi
    if [[ -t 0 ]]; then
        read -r -p "Install with '${as_root[*]:+${as_root[*]} }apt-get install ${packages[*]}'? [Y/n] " answer
        [[ -z $answer || $answer == [Yy]* ]] || die "nothing was installed"
    elif ((EUID != 0)); then
        as_root=(sudo -n)
    fi
    # The lists of a new machine are empty or old, and an old list names versions that are gone.
    say "installing ${packages[*]}"
    "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

# Waits for a condition: wait_until SECONDS COMMAND... is true as soon as COMMAND is, false when
# SECONDS have passed before.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# take_down FOLDER: every set of services in it, and it.
take_down() {
    local set
    for set in "$1"/*/; do
        [[ ! -d $set ]] || "$repo/scripts/services" down --dir "$set"
    done
    rm -rf "$1"
}

# take_down_left NAME: what runs of a script could not take down, as they were killed.
take_down_left() {
    local left
    for left in "$repo/.services/$1"-*; do
        [[ ! ${left##*-} =~ ^[0-9]+$ || ! -d $left || -d /proc/${left##*-} ]] || take_down "$left"
    done
}

# need_rust [COMPONENT...]: cargo, and those of its parts that rustup can add.
need_rust() {
    local component
    # Where rustup puts it, for a shell that was open before.
    have cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    have cargo || die "there is no cargo: install Rust by https://rustup.rs first"
    for component; do
        "cargo-$component" --version >/dev/null 2>&1 && continue
        have rustup || die "this Rust has no $component, and there is no rustup to add it"
        say "adding $component to Rust (rustup component add)"
        rustup component add "${component/fmt/rustfmt}" >&2
    done
}

# want_build_packages: what a build needs beside Rust.
want_build_packages() {
    want gcc "links" have cc
    want libc6-dev "is linked to" can_link
    want pkg-config "finds OpenSSL" have pkg-config
    want libssl-dev "TLS to PostgreSQL" pkg-config --exists openssl
}

# A compiler can be there without the C library that it links to.
can_link() {
    echo 'int main(void) { return 0; }' | cc -x c -o /dev/null -
}
