// SPDX-License-Identifier: GPL-2.0
/* A program that no verifier accepts: it uses a map value that may be absent. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} refused_map SEC(".maps");

SEC("cgroup/connect4")
int forgets_null(struct bpf_sock_addr *ctx)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&refused_map, &key);

	return *value != 0;
}

SEC("cgroup/connect4")
int fine(struct bpf_sock_addr *ctx)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
