#!/usr/bin/env bash
# Makes what one machine needs to run Curtain: an authority and certificates for the control link, keys and secrets, and
# the three configuration files, filled in from deploy/examples. Needs openssl. Writes nothing outside FOLDER.
#
#   deploy/new-site.sh --host visit.example.org --address 203.0.113.10 FOLDER
#
#   --host NAME       name under which browsers reach the service
#   --address IP      IPv4 address at which clients reach this machine (the public one, where it is behind NAT)
#   --local IP        the machine's own address, where that differs (NAT); default: --address
#   --self-signed     also a certificate for NAME that nobody trusts, for trials; else put fullchain.pem and privkey.pem
#                     of a public authority into FOLDER
#   --containers      for deploy/containers/compose.yaml instead of the systemd units
#   --days N          life of the control link's certificates; default 825
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p}' "$0" >&2
    exit 2
}

host='' address='' local='' folder='' self_signed=false containers=false days=825
while [ $# -gt 0 ]; do
    case $1 in
        --host) host=${2:-}; shift 2 ;;
        --address) address=${2:-}; shift 2 ;;
        --local) local=${2:-}; shift 2 ;;
        --days) days=${2:-}; shift 2 ;;
        --self-signed) self_signed=true; shift ;;
        --containers) containers=true; shift ;;
        -*) usage ;;
        *) folder=$1; shift ;;
    esac
done
[ -n "$host" ] && [ -n "$address" ] && [ -n "$folder" ] || usage
local=${local:-$address}
[[ $host =~ ^[A-Za-z0-9.-]+$ ]] || { echo "new-site: --host $host is not a host name" >&2; exit 2; }
for ip in "$address" "$local"; do
    [[ $ip =~ ^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$ ]] || { echo "new-site: $ip is not an IPv4 address" >&2; exit 2; }
done
[ ! -e "$folder/sfu.toml" ] || { echo "new-site: $folder holds a site already" >&2; exit 1; }

umask 077
mkdir -p "$folder"
cd "$folder"

# A certificate carries its role: signaling is the link's client, sfu its server. One cannot stand in for the other.
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${new_key[@]}" -keyout control-ca.key -out control-ca.pem -days "$days" -subj '/CN=Curtain control' \
    -addext 'keyUsage=critical,keyCertSign' 2>/dev/null
issue() { # NAME SAN USAGE
    openssl req "${new_key[@]}" -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA control-ca.pem -CAkey control-ca.key -days "$days" -out "$1.pem" 2>/dev/null \
        -set_serial "0x$(openssl rand -hex 16)" -extfile <(
            printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectAltName=DNS:%s\nextendedKeyUsage=%s\n' \
                "$2" "$3"
        )
    rm "$1.csr"
}
issue sfu sfu.curtain.internal serverAuth
issue signaling signaling.curtain.internal clientAuth
if $self_signed; then
    openssl req -x509 "${new_key[@]}" -keyout privkey.pem -out fullchain.pem -days 30 -subj "/CN=$host" \
        -addext "subjectAltName=DNS:$host,IP:$address" -addext "basicConstraints=critical,CA:FALSE" 2>/dev/null
fi

random() { openssl rand -base64 36; }
key="API$(openssl rand -hex 6)"
secret=$(random) turn=$(random) pseudonyms=$(random)

cp "$here"/examples/{sfu.toml,signaling.toml,turnserver.conf} .
# Each edit must find its line: `fill` compares before and after and says which did not.
fill() { # FILE SED-EXPRESSION...
    local file=$1 before after expression
    shift
    for expression in "$@"; do
        before=$(cat "$file")
        sed -i -e "$expression" "$file"
        after=$(cat "$file")
        [ "$before" != "$after" ] || { echo "new-site: $file: nothing to do for $expression" >&2; exit 1; }
    done
}
fill sfu.toml \
    '/^\[media\]/,/^\[control\]/s/^bind = .*/bind = "0.0.0.0"/' \
    "s/^advertise = .*/advertise = [\"$address\"]/" \
    "s|^example-key = .*|$key = \"$secret\"|" \
    's/^# \[turn\]/[turn]/' \
    "/^\[turn\]/,\$s|^# urls = .*|urls = [\"turn:$host:3478?transport=udp\", \"turns:$host:5349?transport=tcp\"]|" \
    "/^\[turn\]/,\$s|^# secret = .*|secret = \"$turn\"|"
fill signaling.toml \
    's/^bind = .*/bind = "0.0.0.0:443"/' \
    's|^page = .*|page = "/usr/local/share/curtain/page"|' \
    's/^# \[tls\]/[tls]/' \
    '/^\[tls\]/,/^$/s/^# \(certificate\|key\) = /\1 = /' \
    "s|^example-key = .*|$key = \"$secret\"|" \
    's/^# \[metrics\]/[metrics]/' \
    's/^# bind = /bind = /' \
    's|^file = "audit.sqlite"|file = "/var/lib/curtain/audit.sqlite"|' \
    "s|^pseudonym_key = .*|pseudonym_key = \"$pseudonyms\"|"
# TURN on 5349: port 443 of this address is the page's. With a second address give turnserver.conf that one and 443.
fill turnserver.conf \
    "s/^listening-ip=.*/listening-ip=$local/" \
    "s/^relay-ip=.*/relay-ip=$local/" \
    's/^tls-listening-port=.*/tls-listening-port=5349/' \
    "s|^static-auth-secret=.*|static-auth-secret=$turn|" \
    "s/^realm=.*/realm=$host/" \
    's|^cert=.*|cert=/etc/curtain/fullchain.pem|' \
    's|^pkey=.*|pkey=/etc/curtain/privkey.pem|' \
    "s/^allowed-peer-ip=.*/allowed-peer-ip=$address/"
if [ "$local" != "$address" ]; then
    # Media goes from TURN to the relay's public address: both are this machine.
    sed -i -e "s|^# Behind NAT: external-ip=.*|external-ip=$address/$local|" -e "/^allowed-peer-ip=/aallowed-peer-ip=$local" \
        turnserver.conf
fi
if $containers; then
    # As in compose.yaml: on its bridge the host is 10.89.77.1; port 443 is published from 8443.
    fill sfu.toml 's/^listen = "127.0.0.1:\(7879\|7881\)"/listen = "10.89.77.1:\1"/'
    fill signaling.toml \
        's/^bind = "0.0.0.0:443"/bind = "0.0.0.0:8443"/' \
        's/^address = "127.0.0.1:/address = "10.89.77.1:/' \
        's/^bind = "127.0.0.1:7889"/bind = "0.0.0.0:7889"/'
    fill turnserver.conf 's|=/etc/curtain/|=/run/secrets/|'
fi
echo "made in $folder: API key $key; its secret is in sfu.toml and signaling.toml"
echo "keep control-ca.key away from this machine: it is needed only to renew the control link's certificates"
$self_signed || echo "still missing: fullchain.pem and privkey.pem for $host"
