// SPDX-License-Identifier: GPL-2.0
/* An iterator over the entries of a map: an object of its own, since some kernels lend programs no
 * iterator that is bound to a map. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sample_entries SEC(".maps");

struct seq_file;
struct bpf_map;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
} __attribute__((preserve_access_index));

/* Writes the key of each entry whose value is odd. */
SEC("iter/bpf_map_elem")
int odd_entries(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;
	__u64 *value = ctx->value;
	__u32 copy;

	if (!key || !value || !(*value & 1))
		return 0;
	copy = *key;
	bpf_seq_write(ctx->meta->seq, &copy, sizeof(copy));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
