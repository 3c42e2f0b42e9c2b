# shellcheck shell=bash
# Apache Kafka in KRaft mode, every node broker and controller in one JVM.
# Each broker has five listeners: PLAIN, TLS (a client certificate is required), SASL, SASLTLS and
# the controller's. Everything binds 127.0.0.1; the TLS ones are advertised as localhost.

# What a broker may take: half a gigabyte of heap, started quickly rather than run fast. With the young
# generation that Java would choose, a start collects garbage a dozen times.
kafka_jvm=(-Xms128m -Xmn80m -Xmx512m -XX:MetaspaceSize=96m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError)
# Who measures sets AVAILABILITY_KAFKA_JVM to options of its own: without the second compiler, which has the
# processor's AES, a broker's TLS is what is measured.
if [[ -n ${AVAILABILITY_KAFKA_JVM:-} ]]; then read -r -a kafka_jvm <<<"$AVAILABILITY_KAFKA_JVM"; fi
kafka_start_seconds=120
java=''

# java_command: the Java to run and its options, into `java_command`. A distribution logs through
# Log4j, the jars of the pom through slf4j-simple to standard error.
java_command() {
    # Once: to ask a Java for its version starts it.
    [[ -n $java ]] || java=$(java_17) || die "found no Java 17 or newer"
    java_command=("$java" "${kafka_jvm[@]}" -cp "$classpath"
        -Dorg.slf4j.simpleLogger.showDateTime=true '-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS')
    class_archive
    if [[ -f $archive && -z ${KAFKA_HOME:-} ]]; then java_command+=("-XX:SharedArchiveFile=$archive"); fi
    if [[ -n ${KAFKA_HOME:-} && -f $KAFKA_HOME/config/log4j2.yaml ]]; then
        java_command+=("-Dkafka.logs.dir=$set_dir/kafka" "-Dlog4j2.configurationFile=$KAFKA_HOME/config/log4j2.yaml")
    fi
}

# class_archive: what java_command adds once there is one: the classes that a broker loads, parsed and
# laid out, which halves the time and the work of a start. It holds for this Java and these jars alone.
class_archive() {
    local real
    real=$(realpath "$java")
    archive=$jars/classes-$(printf '%s %s' "$real" "$(stat -c %Y "$real")" | sha256sum | head -c 12).jsa
}

# kafka_archive_classes: runs broker 1, the only one, once for the archive, which is written when it ends
# in good order. Some seconds, once; a broker that fails here will say so at its real start.
kafka_archive_classes() {
    ((brokers == 1)) && [[ -z ${KAFKA_HOME:-} ]] || return 0
    java_command
    [[ ! -f $archive ]] || return 0
    say "preparing a quicker start of Apache Kafka, once"
    local part=$archive.$$ file=$set_dir/kafka/1/pid pid
    launch "$file" "$set_dir/kafka/1/log" "${java_command[@]}" "-XX:ArchiveClassesAtExit=$part" \
        kafka.Kafka "$set_dir/kafka/1/server.properties" || return 0
    wait_until "$kafka_start_seconds" kafka_knows_or_ended 1 || true
    if pid=$(running_pid "$file"); then kill -s TERM "$pid" || true; fi
    # One that had to be killed may have left half an archive.
    if wait_until 60 not_running "$file" && [[ -f $part ]]; then mv "$part" "$archive"; fi
    stop_process "$file" 10
    rm -f "$part"
}

kafka_knows_or_ended() {
    not_running "$set_dir/kafka/$1/pid" || kafka_knows "$1" 1
}

# kafka_set_up: settings and a formatted log directory for each broker.
kafka_set_up() {
    local n cluster formatted=$set_dir/kafka/1/data
    mkdir -m 700 "$set_dir/kafka" # The settings hold a password.
    for ((n = 1; n <= brokers; n++)); do
        mkdir "$set_dir/kafka/$n"
        kafka_properties "$n" >"$set_dir/kafka/$n/server.properties"
    done
    made_once kafka "$formatted" kafka_format
    # A broker's own are three lines of it.
    cluster=$(kafka_id)
    for ((n = 1; n <= brokers; n++)); do
        ((n == 1)) || cp -r "$formatted" "$set_dir/kafka/$n/data"
        sed -i -e "s/^node.id=.*/node.id=$n/" -e "s/^cluster.id=.*/cluster.id=$cluster/" \
            -e "s/^directory.id=.*/directory.id=$(kafka_id)/" "$set_dir/kafka/$n/data/meta.properties"
    done
}

# kafka_format: the log directory of broker 1, with the user of SASL in it.
kafka_format() {
    local log=$set_dir/kafka/1/format.log
    java_command
    "${java_command[@]}" kafka.tools.StorageTool format -t "$(kafka_id)" \
        -c "$set_dir/kafka/1/server.properties" \
        --add-scram "SCRAM-SHA-256=[name=$sasl_user,password=$sasl_password]" \
        --add-scram "SCRAM-SHA-512=[name=$sasl_user,password=$sasl_password]" >"$log" 2>&1 ||
        die "formatting a log directory of Kafka failed: $(tail -n 5 "$log")"
}

# kafka_id: what a cluster or a log directory is known by: 16 bytes as base64 for URLs, which may have
# a hyphen in front, and one of 64 has: as Kafka's own are made without, it takes that for an option.
kafka_id() {
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d =)
    printf '%s\n' "A${id#?}"
}

# kafka_properties NODE
kafka_properties() {
    local n=$1 replicas=$((brokers < 3 ? brokers : 3)) i voters=
    for ((i = 1; i <= brokers; i++)); do
        voters+=${voters:+,}$i@127.0.0.1:${controller_ports[i]}
    done
    cat <<EOF
process.roles=broker,controller
node.id=$n
controller.quorum.voters=$voters
log.dirs=$set_dir/kafka/$n/data

listeners=PLAIN://127.0.0.1:${plain_ports[n]},TLS://127.0.0.1:${tls_ports[n]},SASL://127.0.0.1:${sasl_ports[n]},SASLTLS://127.0.0.1:${sasl_tls_ports[n]},CONTROLLER://127.0.0.1:${controller_ports[n]}
advertised.listeners=PLAIN://127.0.0.1:${plain_ports[n]},TLS://localhost:${tls_ports[n]},SASL://127.0.0.1:${sasl_ports[n]},SASLTLS://localhost:${sasl_tls_ports[n]}
listener.security.protocol.map=PLAIN:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
controller.listener.names=CONTROLLER

ssl.keystore.type=PEM
ssl.keystore.location=$set_dir/certs/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$set_dir/certs/ca.crt
listener.name.tls.ssl.client.auth=required
listener.name.sasltls.ssl.client.auth=none

sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
$(kafka_logins sasl)
$(kafka_logins sasltls)

# A test can refuse a right by an ACL on a name of its own; where there is none, all is allowed.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS

# A client has to make its topics itself.
auto.create.topics.enable=false
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# What production waits minutes for shows within seconds.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
# Half of what an idle broker does is to write twice a second that nothing happens.
metadata.max.idle.interval.ms=10000
group.initial.rebalance.delay.ms=0
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
producer.id.expiration.check.interval.ms=1000
log.cleaner.dedupe.buffer.size=16777216
EOF
}

# kafka_logins LISTENER: one user, the same by PLAIN as by SCRAM.
kafka_logins() {
    local security=org.apache.kafka.common.security
    cat <<EOF
listener.name.$1.plain.sasl.jaas.config=$security.plain.PlainLoginModule required user_$sasl_user="$sasl_password";
listener.name.$1.scram-sha-256.sasl.jaas.config=$security.scram.ScramLoginModule required;
listener.name.$1.scram-sha-512.sasl.jaas.config=$security.scram.ScramLoginModule required;
EOF
}

# kafka_launch NODE: without waiting for it.
kafka_launch() {
    local dir=$set_dir/kafka/$1
    : >"$dir/log"
    java_command
    launch "$dir/pid" "$dir/log" "${java_command[@]}" kafka.Kafka "$dir/server.properties" ||
        broker_failed "$1"
}

# kafka_start: every broker that does not run; returns when each knows all of them.
kafka_start() {
    local n
    for ((n = 1; n <= brokers; n++)); do
        not_running "$set_dir/kafka/$n/pid" || continue
        kafka_launch "$n"
    done
    for ((n = 1; n <= brokers; n++)); do
        kafka_await "$n" "$brokers"
    done
}

# kafka_await NODE COUNT: until NODE answers a Metadata request that names itself and COUNT brokers
# in all. A port that is open says nothing: brokers listen before they are part of the cluster.
kafka_await() {
    local node=$1 count=$2 deadline=$((SECONDS + kafka_start_seconds))
    # As long as nobody listens, this shell sees it without a process of its own for it.
    until { : 3<>"/dev/tcp/127.0.0.1/${plain_ports[node]}"; } 2>/dev/null && kafka_knows "$node" "$count"; do
        if not_running "$set_dir/kafka/$node/pid" || ((SECONDS >= deadline)); then
            broker_failed "$node"
            return 1
        fi
        sleep 0.2
    done
}

kafka_knows() {
    local known
    known=$(kafka_alive "${plain_ports[$1]}") || return 1
    [[ " $known " == *" $1 "* ]] || return 1
    read -r -a known <<<"$known"
    ((${#known[@]} >= $2))
}

broker_failed() {
    say "broker $1 did not start:"
    log_end "$set_dir/kafka/$1/log"
    return 1
}

# kafka_alive PORT: the ids of the brokers that the one at PORT knows, by a Metadata request of
# version 1 for no topic; false when it does not answer within two seconds.
kafka_alive() {
    local answer at i length ids=()
    answer=$(
        exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        # Length 14, API 3, version 1, correlation id 1, no client id, 0 topics.
        printf '\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0' >&3
        length=$(timeout 2 head -c 4 <&3 | od -An -tu4 --endian=big)
        [[ -n $length ]] && timeout 2 head -c "$((length))" <&3 | od -An -v -tu1
    ) || return 1
    read -r -d '' -a answer <<<"$answer" || true
    ((${#answer[@]} >= 8)) || return 1
    at=8 # After the correlation id and the number of brokers.
    for ((i = 0; i < answer[7]; i++)); do
        ids+=("${answer[at + 3]}")
        length=$((answer[at + 4] * 256 + answer[at + 5]))
        at=$((at + 4 + 2 + length + 4))
        # The rack, whose length is -1 when there is none.
        length=$((answer[at] * 256 + answer[at + 1]))
        at=$((at + 2 + (length == 65535 ? 0 : length)))
    done
    printf '%s\n' "${ids[*]}"
}

# kafka_asks_certificates NODE: the TLS listener takes the client that the CA signed, and its
# certificate is the one for localhost.
kafka_asks_certificates() {
    local certs=$set_dir/certs
    openssl s_client -connect "localhost:${tls_ports[$1]}" -verify_return_error -verify_hostname localhost \
        -CAfile "$certs/ca.crt" -cert "$certs/client.crt" -key "$certs/client.key" </dev/null >/dev/null 2>&1
}

# addresses HOST PORT...: a comma list.
addresses() {
    local host=$1 list
    shift
    printf -v list "$host:%s," "$@"
    printf '%s\n' "${list%,}"
}
