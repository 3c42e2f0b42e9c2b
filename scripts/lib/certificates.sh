# shellcheck shell=bash
# Every certificate that the services, the tests and the demonstration need, made by openssl.
#
#   ca                 signs broker, postgres, client, client-ec and expired-client
#   broker             for localhost alone: 127.0.0.1 is the wrong host
#   postgres           for localhost and 127.0.0.1: 127.0.0.2, where it listens too, is the wrong host
#   client             RSA; client.key is PKCS#8, client.pkcs1.key the same key in PKCS#1
#   client-ec          an EC key in SEC1 form
#   expired-client     ended yesterday
#   foreign-ca         signs foreign-client: good in themselves, unknown to the services
#   sites-ca           signs site-valid (localhost, 127.0.0.1, ::1), site-expired,
#                      site-not-yet-valid and site-wrong-host
#   site-self-signed   signed by nobody else
#
# Each is NAME.crt with NAME.key; keys are readable by their owner alone.

# make_certificates DIR
make_certificates() {
    local certs=$1 localhost='DNS:localhost,IP:127.0.0.1,IP:::1'
    mkdir -p "$certs"
    (
        umask 077
        cd "$certs" || exit
        make_ca ca 'Availability services CA'
        make_ca foreign-ca 'A CA that the services do not know'
        make_ca sites-ca 'Availability demonstration sites CA'

        make_leaf ca broker serverAuth DNS:localhost
        cat broker.key broker.crt >broker.pem
        make_leaf ca postgres serverAuth DNS:localhost,IP:127.0.0.1

        key_kind=rsa make_leaf ca client clientAuth ''
        openssl rsa -in client.key -traditional -out client.pkcs1.key 2>/dev/null
        make_leaf ca client-ec clientAuth ''
        openssl ec -in client-ec.key -out sec1.tmp 2>/dev/null
        mv sec1.tmp client-ec.key
        make_leaf foreign-ca foreign-client clientAuth ''
        make_leaf ca expired-client clientAuth '' '-30 days' '-1 day'

        make_leaf sites-ca site-valid serverAuth "$localhost"
        make_leaf sites-ca site-expired serverAuth "$localhost" '-30 days' '-1 day'
        make_leaf sites-ca site-not-yet-valid serverAuth "$localhost" '+30 days' '+60 days'
        make_leaf sites-ca site-wrong-host serverAuth DNS:wrong.host.invalid
        make_key site-self-signed
        openssl req -new -x509 -days 3650 -key site-self-signed.key -out site-self-signed.crt \
            -subj /CN=localhost -addext "subjectAltName=$localhost"
        rm -rf -- *.csr *.issued
        chmod 644 -- *.crt
    )
}

# make_key NAME: as PKCS#8.
make_key() {
    if [[ ${key_kind:-ec} == rsa ]]; then
        openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1.key" 2>/dev/null
    else
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null
    fi
}

# make_ca NAME COMMON_NAME
make_ca() {
    make_key "$1"
    openssl req -new -x509 -days 3650 -key "$1.key" -out "$1.crt" -subj "/CN=$2" \
        -addext 'keyUsage=critical,keyCertSign,cRLSign'
    mkdir "$1.issued"
    : >"$1.issued/index.txt"
}

# make_leaf CA NAME USAGE ALT_NAMES [START END]: dates as `date -d` takes them.
make_leaf() {
    local ca=$1 name=$2 usage=$3 alt=$4 start=${5:--1 day} end=${6:-+3650 days}
    make_key "$name"
    openssl req -new -key "$name.key" -out "$name.csr" -subj "/CN=$name"
    # `openssl ca` rather than `openssl x509`, which can't set a date in the past before OpenSSL 3.4.
    openssl ca -batch -notext -config <(ca_settings "$ca") -cert "$ca.crt" -keyfile "$ca.key" \
        -startdate "$(date -u -d "$start" +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d "$end" +%Y%m%d%H%M%SZ)" \
        -extfile <(leaf_extensions "$usage" "$alt") -in "$name.csr" -out "$name.crt" 2>"$ca.issued/log" || {
        cat "$ca.issued/log" >&2
        return 1
    }
}

ca_settings() {
    cat <<EOF
[ca]
default_ca = here
[here]
database = $1.issued/index.txt
new_certs_dir = $1.issued
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
EOF
}

leaf_extensions() {
    cat <<EOF
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = $1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
${2:+subjectAltName = $2}
EOF
}
