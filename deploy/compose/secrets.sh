#!/bin/sh
# Makes what is secret: passwords, the API's token, and the certificate of the database's server. What is there already
# stays. Each folder is a volume of its own, which only the programs that need it mount.
#   secrets.sh [FOLDER]
set -eu
umask 022
cd "${1:-/secrets}"
DAYS=3650

# A file that is there is whole: it is renamed at its end.
for one in root/password accounts/writer accounts/reader accounts/migrator api/token grafana/password; do
    # Each command by itself: what fails beside || or && does not end the script.
    if [ ! -s "$one" ]; then
        openssl rand -hex 24 >"$one.new"
        mv "$one.new" "$one"
    fi
done
for role in writer reader; do
    cp "accounts/$role" "$role/password"
done

if [ ! -s server/cert.pem ] || [ ! -s ca/ca.pem ]; then
    made=$(mktemp -d)
    new="openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days $DAYS"
    $new -subj "/CN=recorder CA" -keyout "$made/ca-key.pem" -out "$made/ca.pem" 2>"$made/log" &&
        $new -subj "/CN=db" -CA "$made/ca.pem" -CAkey "$made/ca-key.pem" -addext subjectAltName=DNS:db,DNS:localhost \
            -addext basicConstraints=critical,CA:FALSE -keyout "$made/key.pem" -out "$made/cert.pem" 2>"$made/log" ||
        { cat "$made/log" >&2; exit 1; }
    # Nobody else is to be certified, so the authority's own key is not kept.
    cp "$made/ca.pem" ca/ca.pem
    cp "$made/key.pem" "$made/ca.pem" server/
    chmod 0644 server/key.pem
    cp "$made/cert.pem" server/cert.pem
    rm -rf "$made"
fi
echo "the secrets are there"
