# The addons: native/bpf (libbpf-ts) and native/io (batched I/O and TLS). Built by native/build.sh, offline, against the headers of
# the pinned Node; OpenSSL is the one inside the Node binary.
{
  "target_defaults": {
    "include_dirs": ["<!@(node -p \"require('node-addon-api').include_dir\")"],
    "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_DISABLE_DEPRECATED", "NAPI_CPP_EXCEPTIONS"],
    "cflags!": ["-fno-exceptions"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
    "cflags_cc": [
      "-std=c++20", "-fexceptions", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter",
      "-Wno-missing-field-initializers", "-Wno-cast-function-type", "-O2",
    ],
    "ldflags": ["-Wl,-z,now"],
  },
  "targets": [
    {
      "target_name": "ambit_bpf",
      "sources": [
        "native/bpf/src/addon.cc",
        "native/bpf/src/batch.cc",
        "native/bpf/src/kernel.cc",
        "native/bpf/src/memory.cc",
        "native/bpf/src/netns_thread.cc",
        "native/bpf/src/object.cc",
        "native/bpf/src/ring.cc",
        "native/bpf/src/sockets.cc",
      ],
      "cflags_cc": ["<!@(pkg-config --cflags libbpf)"],
      "libraries": ["<!@(pkg-config --libs libbpf)"],
    },
    {
      "target_name": "ambit_io",
      "sources": [
        "native/io/src/addon.cc",
        "native/io/src/engine.cc",
        "native/io/src/read.cc",
        "native/io/src/sockets.cc",
        "native/io/src/tls.cc",
        "native/io/src/write.cc",
      ],
    },
  ]
}
