# shellcheck shell=bash
# Functions that the scripts of this folder share: messages, services, and missing packages.
# Sourced, not run. Messages go to standard error, so that the output of a script stays its own.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repo
# shellcheck disable=SC2034 # Used by the scripts that source this file.
programs=${CARGO_TARGET_DIR:-$repo/target}/debug

log() {
    printf '%s\n' "$*" >&2
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A wrong command line ends with 2, as it does for the two programs.
usage_error() {
    printf '%s: %s (%s --help describes the options)\n' "${0##*/}" "$*" "${0##*/}" >&2
    exit 2
}

# The comment at the head of a script is its help.
print_help() {
    sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

is_installed() {
    command -v "$1" >/dev/null 2>&1
}

missing=()

# require PACKAGE PURPOSE TEST...: the next install_missing installs PACKAGE if TEST fails.
require() {
    local package=$1 purpose=$2
    shift 2
    "$@" >/dev/null 2>&1 || missing+=("$package	$purpose")
}

# Installs the missing packages by name, after it has listed them with their purpose. On a terminal it
# asks first; without a terminal nobody can answer, and it installs them.
install_missing() {
    ((${#missing[@]})) || return 0
    local entry answer packages=() as_root=()
    log "This machine lacks:"
    for entry in "${missing[@]}"; do
        packages+=("${entry%%	*}")
        log "  ${entry%%	*} (${entry#*	})"
    done
    missing=()
    is_installed apt-get || fail "there is no apt-get: install these packages by the means of this system, and start again"
    if ((EUID != 0)); then
        is_installed sudo || fail "only root can install packages, and there is no sudo: run 'apt-get install ${packages[*]}' as root, and start again"
        as_root=(sudo)
    fi
    if [[ -t 0 ]]; then
        read -r -p "Install with '${as_root[*]:+${as_root[*]} }apt-get install ${packages[*]}'? [Y/n] " answer
        [[ -z $answer || $answer == [Yy]* ]] || fail "nothing was installed"
    elif ((EUID != 0)); then
        as_root=(sudo -n)
    fi
    # A new machine has no package lists, or old ones, which name versions that no server has any more.
    log "installing ${packages[*]}"
    "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

# require_rust [COMPONENT...]: cargo, and components that rustup can add.
require_rust() {
    local component
    # The folder of rustup, for a shell that was open before the installation.
    is_installed cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    is_installed cargo || fail "there is no cargo: install Rust with https://rustup.rs first"
    for component; do
        "cargo-$component" --version >/dev/null 2>&1 && continue
        is_installed rustup || fail "this Rust has no $component, and there is no rustup to add it"
        log "adding $component to Rust (rustup component add)"
        rustup component add "${component/fmt/rustfmt}" >&2
    done
}

# require_build_packages: the packages that a build needs besides Rust.
require_build_packages() {
    require gcc "links programs" is_installed cc
    require libc6-dev "programs are linked to it" can_link
    require pkg-config "finds OpenSSL" is_installed pkg-config
    require libssl-dev "TLS to PostgreSQL" pkg-config --exists openssl
}

# A compiler can be installed without the C library that it links to.
can_link() {
    echo 'int main(void) { return 0; }' | cc -x c -o /dev/null -
}

# Prints the path of the Java that runs Kafka: from JAVA_HOME, else from PATH. Fails if both are older than 17.
find_java() {
    local candidate home version
    for candidate in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
        [[ -n $candidate && -x $candidate ]] || continue
        # The file `release` of Java has the version, so that Java need not start.
        home=$(realpath "$candidate")
        version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "${home%/bin/java}/release" 2>/dev/null) ||
            version=$("$candidate" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
        if [[ -n $version && $version -ge 17 ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# find_jars: sets `jars` to the folder with Kafka's jars and PostgreSQL's programs, one for each version
# of pom.xml.
find_jars() {
    local version
    version=$(sha256sum "$repo/scripts/pom.xml")
    jars=$repo/.services/cache/${version:0:12}
}

lacks_kafka() {
    [[ -z ${KAFKA:-} && -z ${KAFKA_HOME:-} && ! -d $jars/kafka ]]
}

lacks_postgres() {
    [[ -z ${POSTGRES:-} && ! -d $jars/postgres ]]
}

# require_service_packages: the packages that `scripts/services up` needs besides a build.
require_service_packages() {
    find_jars
    [[ -n ${KAFKA:-} ]] || require default-jre-headless 'Apache Kafka runs on Java 17 or newer' find_java
    if lacks_kafka || lacks_postgres; then
        require maven 'fetches Apache Kafka and PostgreSQL from Maven Central' is_installed mvn
        require unzip 'unpacks PostgreSQL' is_installed unzip
        require xz-utils 'unpacks PostgreSQL' is_installed xz
    fi
}

# fetch_jars: fetches the missing jars of Kafka and programs of PostgreSQL. Sets that start at the same
# time fetch them once.
fetch_jars() {
    if ! lacks_kafka && ! lacks_postgres; then return; fi
    mkdir -p "$jars"
    exec 8<"$jars"
    flock 8
    if lacks_kafka; then
        log "fetching Apache Kafka from Maven Central"
        fetch_profile kafka
        mv "$jars/kafka.part" "$jars/kafka"
    fi
    if lacks_postgres; then
        log "fetching PostgreSQL from Maven Central"
        fetch_profile postgres "-Dpostgres.arch=$(postgres_arch)"
        mkdir "$jars/postgres.part/unpacked"
        unzip -p "$jars"/postgres.part/*.jar '*.txz' | tar -xJ --no-same-owner -C "$jars/postgres.part/unpacked"
        mv "$jars/postgres.part/unpacked" "$jars/postgres"
        rm -r "$jars/postgres.part"
    fi
    exec 8<&-
}

# fetch_profile PROFILE [OPTION...]: fetches its dependencies into PROFILE.part. The caller renames the
# folder when it is complete.
fetch_profile() {
    rm -rf "$jars/$1.part"
    mvn -B -f "$repo/scripts/pom.xml" -P "$1" "${@:2}" dependency:copy-dependencies \
        "-DoutputDirectory=$jars/$1.part" >"$jars/maven.log" 2>&1 8<&- || {
        grep -E '^\[(ERROR|WARNING)\] .' "$jars/maven.log" | cut -c 1-400 | head -n 8 >&2
        fail "Maven could not fetch the files; its whole output is in $jars/maven.log"
    }
}

postgres_arch() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64 | arm64) echo arm64v8 ;;
    *) fail "Maven Central has PostgreSQL for x86_64 and aarch64, not for $(uname -m); set POSTGRES to the URI of your own server" ;;
    esac
}

# Whether the program `services` was built after the last change of its sources.
services_are_built() {
    local sources=("$repo"/Cargo.{toml,lock} "$repo"/common/{src,kafka/src,testkit/services})
    [[ -x $programs/services && -e $programs/services.checked ]] &&
        [[ -z $(find "${sources[@]}" -newer "$programs/services.checked" -print -quit) ]]
}

# Builds the program `services`. Without a change it does not even run cargo, which would wait for other
# builds.
build_services() {
    services_are_built && return
    mkdir -p "$programs"
    # A change during the build is newer than this mark.
    local mark
    mark=$(mktemp "$programs/services.checked.XXXXXX")
    (cd "$repo" && cargo build --locked --quiet --package services >&2) || {
        rm -f "$mark"
        return 1
    }
    mv "$mark" "$programs/services.checked"
}

# start_own_services DIR [OPTION...]: starts a set in DIR and puts its variables into the environment.
start_own_services() {
    "$repo/scripts/services" up --dir "$@"
    use_services "$1"
}

# use_services DIR: puts the variables of the set in DIR into the environment.
use_services() {
    local variables
    variables=$("$repo/scripts/services" env --dir "$1")
    set -a
    eval "$variables"
    set +a
}

# remove_sets FOLDER: takes down every set of services in FOLDER, and removes FOLDER.
remove_sets() {
    local set
    for set in "$1"/*/; do
        [[ ! -d $set ]] || "$repo/scripts/services" down --dir "$set"
    done
    rm -rf "$1"
}

# remove_abandoned_sets NAME: removes the sets of runs that were killed before they removed them.
remove_abandoned_sets() {
    local folder
    for folder in "$repo/.services/$1"-*; do
        [[ ! ${folder##*-} =~ ^[0-9]+$ || ! -d $folder || -d /proc/${folder##*-} ]] || remove_sets "$folder"
    done
}

# at_exit FUNCTION: calls FUNCTION with the exit code when the script ends, also after a signal.
at_exit() {
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # shellcheck disable=SC2064 # The name is known now.
    trap "$1 \$?" EXIT
}

# seconds_and_seed OPTION...: reads --seconds and --seed into the variables of these names.
seconds_and_seed() {
    while (($#)); do
        case $1 in
        --seconds | --seed)
            (($# > 1)) || usage_error "$1: expected a value"
            [[ $2 =~ ^[0-9]{1,18}$ ]] || usage_error "$1: expected a number, found '$2'"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        -h | --help)
            print_help
            exit
            ;;
        *) usage_error "unknown option: $1" ;;
        esac
        shift
    done
}
