# One image for every program of Ambit: `agent`, `waypoint`, `control` and the command line. Which one runs is the first
# argument. Built by `docker build .`; where no container engine is at hand, deploy/image/rootfs.sh takes the same steps.
# Comments stand on lines of their own and every `apt-get` step has the same form: rootfs.sh reads this file too.

FROM node:26-bookworm AS modules
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts

# What runs needs of them: no compiler, no linter, no test runner; nor the pinned Node's headers, manual and symbols, nor what
# packages carry for people, editors, debuggers, other runtimes than Node, and their own tests. Licences stay.
FROM modules AS packages
RUN npm prune --omit=dev && rm -rf node_modules/node-linux-*/include node_modules/node-linux-*/share node_modules/node-addon-api node_modules/@types node_modules/undici-types node_modules/zod/src
RUN find node_modules -type d '(' -name test -o -name tests -o -name __tests__ -o -name benchmarks -o -name docs -o -name prebuilds ')' -prune -exec rm -rf {} + && find node_modules -type f '(' -name '*.ts' -o -name '*.cts' -o -name '*.mts' -o -name '*.map' -o -name '*.md' -o -name '*.markdown' -o -name '*.flow' ')' -delete
RUN for node in node_modules/node-linux-*/bin/node; do strip -o node.stripped "$node" && mv node.stripped "$node" || exit 1; done

# The addons and the kernel programs.
FROM modules AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential clang llvm libbpf-dev pkg-config python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY agent/bin/node agent/bin/node
COPY binding.gyp binding.gyp
COPY native/build.sh native/build.sh
COPY native/cni native/cni
COPY native/holder native/holder
COPY native/bpf/src native/bpf/src
COPY native/io/src native/io/src
COPY bpf bpf
RUN native/build.sh && native/cni/build.sh && native/holder/build.sh && bpf/build.sh

# What is shipped.
FROM debian:bookworm-slim AS image
# libatomic1 and libstdc++6 for Node, libbpf1 with libelf1 for the addons.
RUN apt-get update && apt-get install -y --no-install-recommends libatomic1 libbpf1 libelf1 libstdc++6 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/ambit
ENV PATH=/opt/ambit/agent/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=packages /src/node_modules node_modules
COPY --from=build /src/build/Release/ambit_bpf.node /src/build/Release/ambit_io.node build/Release/
COPY --from=build /src/bpf/build/*.bpf.o bpf/build/
COPY --from=build /src/build/cni/ambit-cni build/cni/
COPY --from=build /src/build/holder/ambit-holder build/holder/
COPY package.json LICENSE ./
COPY native/bpf/*.ts native/bpf/
COPY native/io/index.ts native/io/index.ts
COPY native/bpf/gen native/bpf/gen
COPY agent agent
# Nobody in particular: the waypoint and the control plane need no rights. The agent's DaemonSet asks for root and the
# few capabilities it uses.
USER 65532:65532
ENTRYPOINT ["/opt/ambit/agent/bin/ambit"]
CMD ["--help"]
