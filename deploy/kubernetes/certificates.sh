#!/bin/sh
# Makes the certificates of a throw-away cluster with openssl: one authority, and what each program shows to the others.
# P-256, ten days: longer than any sandbox lives.
#   certificates.sh FOLDER API_SERVER_NAMES NODE=ADDRESS...
# API_SERVER_NAMES as openssl writes them: DNS:kubernetes,IP:10.0.0.1,…
set -eu
umask 077
folder=$1
names=$2
shift 2
mkdir -p "$folder"
cd "$folder"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

key ca.key
openssl req -x509 -new -key ca.key -sha256 -days 10 -subj "/CN=ambit-sandbox" \
	-addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign,digitalSignature" -out ca.crt

# issue FILE SUBJECT [NAMES]
issue() {
	key "$1.key"
	{
		echo "basicConstraints=CA:FALSE"
		echo "keyUsage=digitalSignature"
		echo "extendedKeyUsage=clientAuth${3:+,serverAuth}"
		[ -z "${3:-}" ] || echo "subjectAltName=$3"
	} >"$1.ext"
	openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 8)" -days 10 -sha256 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
	rm -f "$1.csr" "$1.ext"
}

issue apiserver "/CN=kube-apiserver" "$names"
issue apiserver-kubelet-client "/O=system:masters/CN=kube-apiserver-kubelet-client"
issue front-proxy-client "/CN=front-proxy-client"
issue admin "/O=system:masters/CN=kubernetes-admin"
issue controller-manager "/CN=system:kube-controller-manager"
issue scheduler "/CN=system:kube-scheduler"
issue proxy "/CN=system:kube-proxy"
for node; do
	issue "kubelet-${node%%=*}" "/O=system:nodes/CN=system:node:${node%%=*}" "DNS:${node%%=*},IP:${node#*=}"
done
key service-accounts.key
openssl pkey -in service-accounts.key -pubout -out service-accounts.pub
