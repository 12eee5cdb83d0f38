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

struct sample_prefix {
	__u32 length;
	__u8 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sample_prefix);
	__type(value, __u32);
} sample_lpm SEC(".maps");

struct sample_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct sample_table);
} sample_tables SEC(".maps");

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

struct sample_nested {
	__u32 table;
	__u32 first;
	__u32 second;
	__u32 found;
	__u64 first_value;
	__u64 second_value;
};

/* Reads two entries of one table, as a program does that must not see half of a change. */
SEC("syscall")
int read_table(struct sample_nested *run)
{
	__u32 table = run->table, first = run->first, second = run->second;
	void *inner = bpf_map_lookup_elem(&sample_tables, &table);
	__u64 *one, *two;

	if (!inner)
		return 0;
	one = bpf_map_lookup_elem(inner, &first);
	two = bpf_map_lookup_elem(inner, &second);
	run->first_value = one ? *one : 0;
	run->second_value = two ? *two : 0;
	run->found = !!one + !!two;
	return 1;
}

/* Longest match of the key behind the packet's Ethernet header: the value, or 0. (A sleepable
 * program may not use a trie.) */
SEC("tc")
int match_prefix(struct __sk_buff *skb)
{
	struct sample_prefix key;
	__u32 *value;

	if (bpf_skb_load_bytes(skb, 14, &key, sizeof(key)))
		return 0;
	value = bpf_map_lookup_elem(&sample_lpm, &key);
	return value ? *value : 0;
}

/* Counts packets of an interface in slot 0 of sample_array, and lets them go on. */
SEC("tc")
int count_packets(struct __sk_buff *skb)
{
	__u32 slot = 0;
	__u64 *count = bpf_map_lookup_elem(&sample_array, &slot);

	if (count)
		__sync_fetch_and_add(count, 1);
	return -1; /* TCX_NEXT */
}

SEC("tc")
int drop_packets(struct __sk_buff *skb)
{
	return 2; /* TCX_DROP */
}

/* The few members of the kernel's own types that iterators need; offsets are found at load. */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct sock_common {
	__u16 skc_num;
	volatile unsigned char skc_state;
} __attribute__((preserve_access_index));

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));

/* Writes the port of each listener of the namespace. */
SEC("iter/tcp")
int listening_ports(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	__u32 port;

	if (!sk || sk->skc_state != 10) /* TCP_LISTEN */
		return 0;
	port = sk->skc_num;
	bpf_seq_write(ctx->meta->seq, &port, sizeof(port));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
