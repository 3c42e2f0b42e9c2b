# shellcheck shell=bash
# PostgreSQL with TLS on. It refuses to run as root, so root starts it as nobody. Where nobody can't
# reach the set's folder (a checkout below /root, say), the data and a copy of the programs live in a
# folder of their own below /tmp, and the set's folder holds a link to it.
# It listens on 127.0.0.1, and on 127.0.0.2, which its certificate does not name.

postgres_start_seconds=60
unprivileged=()
if ((EUID == 0)); then
    unprivileged=(setpriv --reuid=nobody "--regid=$(id -g nobody)" --clear-groups --inh-caps=-all)
fi

# postgres_home: the folder with data/, log and pid, followed to where it really is.
postgres_home() {
    readlink -f "$set_dir/postgres"
}

# postgres_programs: the folder with bin/, lib/ and share/.
postgres_programs() {
    local copy
    copy=$(postgres_home)/programs
    if [[ -d $copy ]]; then printf '%s\n' "$copy"; else printf '%s\n' "$jars/postgres"; fi
}

reachable() {
    "${unprivileged[@]}" test -x "$1" 2>/dev/null
}

# postgres_place: makes the folder, in the set or where an unprivileged user can reach it.
postgres_place() {
    local place
    if reachable "$set_dir" && reachable "$jars/postgres/bin/postgres"; then
        mkdir -m 755 "$set_dir/postgres"
        return
    fi
    place=$(mktemp -d /tmp/availability-postgres.XXXXXX)
    chmod 755 "$place"
    ln -s "$place" "$set_dir/postgres"
    say "user nobody can't reach $set_dir, so PostgreSQL's data is in $place"
    cp -r --no-preserve=ownership "$jars/postgres" "$place/programs"
    chmod -R go=u-w "$place/programs"
}

postgres_remove() {
    local place
    place=$(postgres_home)
    [[ $place == /tmp/availability-postgres.* && -O $place ]] && rm -rf "$place"
    return 0
}

# postgres_set_up: a data directory with three roles that reach it in one way only: with TLS,
# without, and by the certificate of client.crt, whose name is the role's.
postgres_set_up() {
    local home data
    postgres_place
    home=$(postgres_home)
    data=$home/data
    made_once postgres "$data" postgres_init || return
    postgres_conf >>"$data/postgresql.conf"
    postgres_hba >"$data/pg_hba.conf"
    install -m 600 "$set_dir/certs/postgres.key" "$data/server.key"
    install -m 644 "$set_dir/certs/postgres.crt" "$data/server.crt"
    install -m 644 "$set_dir/certs/ca.crt" "$data/root.crt"
    ((EUID != 0)) || chown nobody "$data"/{server.key,server.crt,root.crt}
}

# postgres_init DATA: the data directory with its roles, without settings.
postgres_init() {
    local data=$1 home programs
    home=$(postgres_home)
    programs=$(postgres_programs)
    mkdir -m 700 "$data"
    printf '%s\n' "$postgres_password" >"$home/password"
    chmod 600 "$home/password"
    ((EUID != 0)) || chown nobody "$data" "$home/password"
    as_postgres "$programs/bin/initdb" -D "$data" -U postgres --pwfile="$home/password" -A scram-sha-256 \
        --locale=C --encoding=UTF8 --no-sync --no-instructions >"$home/log" 2>&1 || {
        postgres_failed
        return 1
    }
    rm -f "$home/password"
    # The distribution has no psql; a server for one session takes the statements.
    postgres_roles | as_postgres "$programs/bin/postgres" --single -j -D "$data" postgres >>"$home/log" 2>&1 || {
        postgres_failed
        return 1
    }
}

# as_postgres COMMAND...: from / , because the folder we stand in may be closed to nobody.
as_postgres() (
    cd /
    exec "${unprivileged[@]}" "$@"
)

postgres_conf() {
    cat <<EOF

listen_addresses = '127.0.0.1,127.0.0.2'
port = $postgres_port
unix_socket_directories = ''
max_connections = 200
shared_buffers = 32MB
ssl = on
ssl_ca_file = 'root.crt'
log_line_prefix = '%m [%p] %u@%d '
EOF
}

postgres_hba() {
    cat <<EOF
# TYPE     DATABASE  USER        ADDRESS      METHOD
hostssl    all       tls_only    127.0.0.0/8  scram-sha-256
host       all       tls_only    127.0.0.0/8  reject
hostnossl  all       plain_only  127.0.0.0/8  scram-sha-256
host       all       plain_only  127.0.0.0/8  reject
hostssl    all       client      127.0.0.0/8  cert
host       all       client      127.0.0.0/8  reject
host       all       all         127.0.0.0/8  scram-sha-256
EOF
}

# With -j a statement ends at a semicolon and an empty line.
postgres_roles() {
    local role password login
    while read -r role password; do
        login=LOGIN
        [[ -z $password ]] || login="LOGIN PASSWORD '$password'"
        printf 'CREATE ROLE %s %s;\n\nCREATE DATABASE %s OWNER %s;\n\n' "$role" "$login" "$role" "$role"
    done <<EOF
tls_only $tls_only_password
plain_only $plain_only_password
client
EOF
}

postgres_launch() {
    local home
    home=$(postgres_home)
    : >"$home/log"
    launch "$home/pid" "$home/log" env --chdir=/ "${unprivileged[@]}" \
        "$(postgres_programs)/bin/postgres" -D "$home/data" || postgres_failed
}

postgres_await() {
    local home deadline=$((SECONDS + postgres_start_seconds))
    home=$(postgres_home)
    until postgres_answers; do
        # With one of its two addresses taken it goes on with the other.
        if not_running "$home/pid" || ((SECONDS >= deadline)) || grep -q 'could not bind' "$home/log"; then
            postgres_failed
            return 1
        fi
        sleep 0.1
    done
}

postgres_failed() {
    local home
    home=$(postgres_home)
    say "PostgreSQL did not start:"
    log_end "$home/log"
    return 1
}

# postgres_answers: it asks user postgres for a password ('R', authentication). While it starts,
# recovers or stops it answers with an error instead.
postgres_answers() {
    local answer
    answer=$(
        exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$postgres_port" || exit 1
        # Length 23, protocol 3.0, user postgres, end.
        printf '\0\0\0\027\0\003\0\0user\0postgres\0\0' >&3
        timeout 2 head -c 1 <&3
    ) 2>/dev/null
    [[ $answer == R ]]
}

# postgres_has_tls: its certificate is the CA's, and for localhost.
postgres_has_tls() {
    openssl s_client -starttls postgres -connect "localhost:$postgres_port" -verify_return_error \
        -verify_hostname localhost -CAfile "$set_dir/certs/ca.crt" </dev/null >/dev/null 2>&1
}

# A fast shutdown (INT) ends sessions and writes a checkpoint; an immediate one (QUIT) does not, and
# the next start recovers as after a crash.
postgres_stop() {
    stop_process "$(postgres_home)/pid" 20 INT QUIT
}

postgres_crash() {
    stop_process "$(postgres_home)/pid" 20 QUIT
}
