#!/bin/sh
# Builds the image and images of sample applications as archives that `docker load` and `ctr images import` take, without a
# container engine, and prints a JSON object of what there is, the only line on standard output. Says what it does and how
# long it takes; under a second when nothing changed. Needs root and Debian 12.
#   deploy/image/build.sh            the image, as build/image/ambit-VERSION.tar
#   deploy/image/build.sh DIR...     and one for each image that the manifests of these folders name
set -eu
here=$(dirname "$(readlink -f "$0")")
work=$(readlink -f "$here/../..")/build/image
mkdir -p "$work"
# One build at a time in a checkout: the second waits for the first and finds its work done.
exec 9>"$work/.lock"
flock 9
exec "$here/../../agent/bin/node" --disable-warning=ExperimentalWarning "$here/main.ts" "$@"
