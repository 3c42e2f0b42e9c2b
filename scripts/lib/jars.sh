# shellcheck shell=bash
# Kafka's jars and PostgreSQL's programs, fetched once for each version of scripts/pom.xml.

# jars_locate: where they are, or will be.
jars_locate() {
    local version
    version=$(sha256sum "$scripts/pom.xml")
    jars=$services_root/cache/${version:0:12}
    if [[ -n ${KAFKA_HOME:-} ]]; then
        KAFKA_HOME=$(realpath "$KAFKA_HOME")
        compgen -G "$KAFKA_HOME/libs/kafka-server-*.jar" >/dev/null ||
            die "KAFKA_HOME is no unpacked Kafka distribution: $KAFKA_HOME/libs holds no kafka-server jar"
    fi
    # The wildcard is for Java, not for the shell.
    if [[ -n ${KAFKA_HOME:-} ]]; then classpath="$KAFKA_HOME/libs/*"; else classpath="$jars/kafka/*"; fi
}

# jars_fetch: into the cache, whatever of both is started and not there yet.
jars_fetch() {
    mkdir -p "$services_root/cache"
    # Sets that start side by side fetch once.
    exec 8<"$services_root/cache"
    flock 8
    if [[ -z $kafka_given && -z ${KAFKA_HOME:-} && ! -d $jars/kafka ]]; then
        say "fetching Apache Kafka from Maven Central"
        fetch kafka
        mv "$jars/kafka.part" "$jars/kafka"
    fi
    if [[ -z $postgres_given && ! -d $jars/postgres ]]; then
        say "fetching PostgreSQL from Maven Central"
        fetch postgres "-Dpostgres.arch=$(postgres_arch)"
        mkdir "$jars/postgres.part/unpacked"
        unzip -p "$jars"/postgres.part/*.jar '*.txz' | tar -xJ --no-same-owner -C "$jars/postgres.part/unpacked"
        mv "$jars/postgres.part/unpacked" "$jars/postgres"
        rm -r "$jars/postgres.part"
    fi
    exec 8<&-
}

# fetch PROFILE [OPTION...]: its dependencies, into PROFILE.part. Only a whole one gets its name.
fetch() {
    rm -rf "$jars/$1.part"
    mkdir -p "$jars"
    mvn -B -f "$scripts/pom.xml" -P "$1" "${@:2}" dependency:copy-dependencies \
        "-DoutputDirectory=$jars/$1.part" >"$jars/maven.log" 2>&1 8<&- || {
        grep -E '^\[(ERROR|WARNING)\] .' "$jars/maven.log" | cut -c 1-400 | head -n 8 >&2
        die "Maven could not fetch it; all it said is in $jars/maven.log"
    }
}

postgres_arch() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64 | arm64) echo arm64v8 ;;
    *) die "Maven Central has PostgreSQL for x86_64 and aarch64, not for $(uname -m); give one of yours by POSTGRES" ;;
    esac
}
