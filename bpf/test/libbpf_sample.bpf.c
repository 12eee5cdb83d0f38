// SPDX-License-Identifier: GPL-2.0
/* One of each: what the kernel tests of native/bpf open, load and attach. It has nothing to do with
 * the mesh. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum sample_color {
	SAMPLE_RED = 1,
	SAMPLE_BLUE = 7,
};

struct sample_key {
	__u8 address[16];
	__be16 port;
	__u8 family;
};

struct sample_inner {
	__s32 delta;
	__u16 list[3];
};

struct sample_value {
	__u64 big;
	__s64 negative;
	struct sample_inner inner;
	struct sample_inner several[2];
	char name[12];
	enum sample_color color;
	_Bool flag;
	__be32 network;
};

struct sample_counters {
	__u64 packets;
	__u32 errors;
	__u32 _pad;
};

struct sample_event {
	__u64 sequence;
	__u32 size;
	char text[12];
};

/* The ring's records have no type of their own in BTF: a global pointer names it for the generator.
 */
const struct sample_event *export_event __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct sample_key);
	__type(value, struct sample_value);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sample_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sample_lru SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sample_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct sample_counters);
} sample_percpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sample_key);
} sample_storage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sample_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} sample_ring SEC(".maps");

const volatile __u16 refused_port = 1;
const volatile __u64 big_constant = 1;
const volatile struct sample_inner constant_struct = {};
__u64 calls;

/* Refuses one port, counts the rest. */
SEC("cgroup/connect4")
int refuse_connect4(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	struct sample_counters *counters = bpf_map_lookup_elem(&sample_percpu, &zero);

	if (counters)
		counters->packets++;
	return bpf_ntohs((__u16)ctx->user_port) != refused_port;
}

/* The same hook with another answer, for link.update: refuses everything. */
SEC("cgroup/connect4")
int refuse_all4(struct bpf_sock_addr *ctx)
{
	return 0;
}

/* Appends its digit to slot 3: shows the order of programs. */
static __always_inline int note(__u32 digit)
{
	__u32 slot = 3;
	__u64 *order = bpf_map_lookup_elem(&sample_array, &slot);

	if (order)
		*order = *order * 10 + digit;
	return 1;
}

SEC("cgroup/connect4")
int order_one(struct bpf_sock_addr *ctx)
{
	return note(1);
}

SEC("cgroup/connect4")
int order_two(struct bpf_sock_addr *ctx)
{
	return note(2);
}

/* Hands every connection to the socket under key 1; refuses where there is none. */
SEC("sk_lookup")
int to_socket(struct bpf_sk_lookup *ctx)
{
	__u32 key = 1;
	struct bpf_sock *sk = bpf_map_lookup_elem(&sample_sockets, &key);
	long error;

	if (!sk)
		return SK_DROP;
	error = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return error ? SK_DROP : SK_PASS;
}

struct sample_run {
	__u32 first;
	__u32 second;
	__u64 sum;
};

SEC("syscall")
int add(struct sample_run *run)
{
	run->sum = (__u64)run->first + run->second + big_constant + constant_struct.delta;
	__sync_fetch_and_add(&calls, 1);
	return 42;
}

struct sample_burst {
	__u32 records;
	__u32 dropped;
};

SEC("syscall")
int emit(struct sample_burst *burst)
{
	__u32 dropped = 0;

	for (__u32 i = 0; i < 2000; i++) {
		struct sample_event event = {
			.sequence = i, .size = burst->records, .text = "event"};

		if (i >= burst->records)
			break;
		if (bpf_ringbuf_output(&sample_ring, &event, sizeof(event), 0))
			dropped++;
	}
	burst->dropped = dropped;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
