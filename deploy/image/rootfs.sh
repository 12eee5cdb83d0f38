#!/bin/sh
# Builds the image's root file system without a container engine, by the steps of the Dockerfile, and prints its folder.
# Needs root and Debian 12. Only what changed is built anew.
#   deploy/image/rootfs.sh                  build
#   deploy/image/rootfs.sh --run agent --help   build, then run the image's entry point inside it
set -eu
here=$(dirname "$(readlink -f "$0")")
exec "$here/../../agent/bin/node" "$here/rootfs.ts" "$@"
