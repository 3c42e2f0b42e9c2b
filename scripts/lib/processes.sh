# shellcheck shell=bash
# Processes that outlive the script that started them, and the ports they listen on.
# A pid file holds "PID START": the kernel gives a pid again, but never with the same start time,
# so nothing is ever signalled that was not started here.

# start_time PID: when it was started, in ticks since boot; false when it is gone or a zombie. One
# whose first thread alone has ended still holds its sockets: the others (field 20) are on their way.
start_time() {
    local fields
    { read -r fields <"/proc/$1/stat"; } 2>/dev/null || return 1
    # The second field is the program's name in parentheses and may hold spaces.
    read -r -a fields <<<"${fields##*) }"
    [[ ${fields[0]} != [ZX] || ${fields[17]} -gt 1 ]] && printf '%s\n' "${fields[19]}"
}

# running_pid FILE: the pid it names, if that very process still runs.
running_pid() {
    local pid started
    [[ -f $1 ]] && read -r pid started <"$1" && [[ $(start_time "$pid") == "$started" ]] && printf '%s\n' "$pid"
}

not_running() {
    ! running_pid "$1" >/dev/null
}

# launch PIDFILE LOG COMMAND...: in a session of its own, so that Ctrl-C here does not reach it.
launch() {
    local file=$1 log=$2
    shift 2
    # Descriptor 9 is the lock of the set; it must not stay locked for as long as the process lives.
    setsid "$@" </dev/null >>"$log" 2>&1 9>&- &
    local pid=$! started
    started=$(start_time "$pid") || {
        rm -f "$file"
        return 1
    }
    printf '%s %s\n' "$pid" "$started" >"$file"
}

# stop_process FILE SECONDS SIGNAL...: one signal after the other, each with that many seconds to
# work; KILL after the last. Returns when the process is gone.
stop_process() {
    local file=$1 seconds=$2 pid signal
    shift 2
    for signal in "$@" KILL; do
        pid=$(running_pid "$file") || break
        kill -s "$signal" "$pid" 2>/dev/null || true
        # A stopped process takes no signal but KILL until it goes on.
        kill -s CONT "$pid" 2>/dev/null || true
        wait_until "$seconds" not_running "$file" || true
    done
    not_running "$file" || die "process $pid does not end, not even by KILL"
    rm -f "$file"
}

# log_end FILE: the last errors in it, then how it ends, which after an orderly exit says nothing.
log_end() {
    {
        grep -nE 'ERROR|FATAL|PANIC|could not|Exception' "$1" | grep -v ' INFO ' | tail -n 10
        printf 'the end of %s:\n' "$1"
        tail -n 10 "$1"
    } | cut -c 1-300 | sed 's/^/  /' >&2
}

port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# take_ports COUNT: sets `ports` to free ones, reserved for this set. They lie below the range that
# the kernel gives to outgoing connections, or a client could sit on the port of a stopped broker.
take_ports() {
    local low candidate
    ports=()
    read -r low _ </proc/sys/net/ipv4/ip_local_port_range
    ((low > 12000)) || low=32768
    mkdir -p "$services_root/ports"
    for candidate in $(shuf -n 500 -i "10000-$((low - 1))"); do
        reserve_port "$candidate" || continue
        ports+=("$candidate")
        ((${#ports[@]} < $1)) || return 0
    done
    die "found no $1 free ports from 10000 to $((low - 1))"
}

reserve_port() {
    local file=$services_root/ports/$1
    # A set whose folder was removed by hand has left its ports behind.
    [[ ! -e $file || -d $(<"$file") ]] || rm -f "$file"
    (set -o noclobber && printf '%s\n' "$set_dir" >"$file") 2>/dev/null || return 1
    port_is_free "$1" || {
        rm -f "$file"
        return 1
    }
}

release_ports() {
    local file
    for file in "$services_root"/ports/*; do
        [[ -f $file && $(<"$file") == "$set_dir" ]] && rm -f "$file"
    done
    return 0
}
