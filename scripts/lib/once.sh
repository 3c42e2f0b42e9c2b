# shellcheck shell=bash
# What takes a set the most work to begin with is made by the first one of a day and copied by the
# others: certificates, passwords, PostgreSQL's data, Kafka's log directory. A day, as some of the
# certificates are good or expired by it.

# once_locate: where it is kept, for these programs, this user and these scripts.
once_locate() {
    local key
    key=$(
        cat "$scripts"/lib/*.sh
        printf '%s\n' "$jars" "$EUID" "${KAFKA_HOME:-}"
        [[ -z ${KAFKA_HOME:-} ]] || stat -c %Y "$KAFKA_HOME/libs"
    )
    key=$(sha256sum <<<"$key")
    once=$services_root/cache/once-$(date -u +%Y%m%d)-${key:0:12}
    (
        umask 077
        mkdir -p "$once"
    )
    find "$services_root/cache" -maxdepth 1 -name 'once-*' -mtime +1 -exec rm -rf {} + || true
}

# made_once NAME PATH COMMAND...: PATH, by `COMMAND... PATH` when nobody has made it today. Sets that
# start side by side wait for the one that makes it.
made_once() {
    local kept=$once/$1 path=$2 made=0
    shift 2
    exec 7>>"$kept.lock"
    flock 7
    if [[ -e $kept ]]; then
        cp -a "$kept" "$path" 7>&- || made=1
    else
        # Not `|| return`, behind which nothing that fails within would end it.
        "$@" "$path" 7>&-
        made=$?
        rm -rf "$kept.part"
        # What can't be kept whole is made again by the next.
        ((made == 0)) && cp -a "$path" "$kept.part" && mv "$kept.part" "$kept"
    fi
    exec 7>&-
    return "$made"
}
