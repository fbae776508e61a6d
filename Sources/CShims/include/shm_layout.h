// The span segment: the binary interface between workers (writers) and the exporter (reader).
//
// For somebody who writes a reader in another language
// ----------------------------------------------------
// The segment is one memfd, mapped MAP_SHARED, in host byte order:
//
//   0                 lb_segment_header           (LB_PAGE_BYTES)
//   rings_offset      ring 0: lb_ring_header      (LB_PAGE_BYTES)
//                             data                (ring_bytes, a power of two)
//                     ring 1: ...
//                     ring ring_count: the consumer's own, for what it finds of dead workers
//   inflight_offset   slot 0: LB_DEATHS tables of LB_INFLIGHT_ENTRIES entries
//                     slot 1: ...
//
// Of the rings, number i < ring_count belongs to worker slot i. Each has one producer and one consumer. `tail` and `head` are counts
// of bytes ever written and ever released; they only grow, and `count & (ring_bytes - 1)` is the offset
// into the data. Readable bytes are [head, tail).
//
//            released by the consumer     published, not yet released      free for the producer
//      ...------------------------------|--------------------------------|---------------------------...
//                                      head                             tail
//                          stored by the CONSUMER only       stored by the PRODUCER only
//                          (release, after delivery)         (release, after the record's bytes)
//
// A record starts at every record boundary with lb_record_header, its size is a multiple of 8, and it
// never wraps: where the data's end is too near, a pad record (LB_RECORD_PAD) fills it up. A tree record
// (LB_RECORD_TREE) is one finished request: lb_tree_header, the trace state (padded to 8), then
// `span_count` times { lb_span_header, its attributes, its events { lb_event_header, attributes }, its links
// { lb_link_header, attributes } }.
// A request record (LB_RECORD_REQUEST) is one finished request too, of the shape that nearly all have: sent once,
// over an idle connection, answered, without a trace state. It holds the facts from which the six spans follow, in
// a quarter of the bytes: lb_request_header, its texts one after the other in the order of their lengths there, and
// at least LB_REQUEST_TAIL_BYTES more. RequestExpander says which tree that is.
//
// A span's parent stands before it. An attribute is lb_attribute_header, then:
//      LB_VALUE_BOOL, LB_VALUE_INT32   nothing: the value is `value`
//      LB_VALUE_INT64                  8 bytes
//      LB_VALUE_STRING                 `value` bytes of UTF-8, padded to 8
//      LB_VALUE_STRINGS                `value` bytes, padded to 8: { uint32 length, bytes, padded to 4 }...
// Names and keys are small integers; ShmRing's vocabulary maps them to text.
//
// A reader loads `tail` with acquire, reads records, and stores `head` with release when it no longer
// needs them. It must believe nothing it reads: the writer may be broken. Check every size against what
// is left before using it; on a size that cannot be, drop everything up to `tail`.
//
// Sleeping: the consumer stores consumer_asleep = 1, fences, looks at every ring once more and only then
// waits on its eventfd (with a timeout as backstop). A producer that published fences, and where the flag
// stands exchanges it for 0 and writes the eventfd. Either the consumer sees the record or the producer
// sees the flag, so no wake-up is lost, and a busy ring costs no system call.
//
// Requests in flight: process number n of a slot (its incarnation, from 0) has the slot's table n % LB_DEATHS,
// whose header stands in the ring's. An entry is one request. The worker fills it with plain stores and then
// stores its word, release: incarnation << 32 | LB_INFLIGHT_*. It clears the word when the tree is published.
// `publish_tail` is the ring's tail before that, so that a reader can tell on which side of it the worker died.
//
// Deaths: the master, having reaped a worker that did not end in order, fills the slot's death record number
// incarnation % LB_DEATHS and stores its word, release, last. The consumer makes a tree of every entry of that
// incarnation, in its own ring, and clears the entry; then it exchanges the death's word for the same incarnation
// with LB_DEATH_HANDLED. A record or a table that a later process overwrites before that is lost.
//
// There are no pointers in the segment. A producer that dies in mid-write leaves unpublished bytes only.
#ifndef LB_SHM_LAYOUT_H
#define LB_SHM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LB_SHM_MAGIC 0x73676e6972706e61ull
#define LB_SHM_LAYOUT_VERSION 7u
#define LB_PAGE_BYTES 4096u
#define LB_CACHE_LINE_BYTES 64u
#define LB_RECORD_BYTES_MAX 65536u
#define LB_PARENT_NONE 0xffu
#define LB_REQUEST_TAIL_BYTES 16u

enum { LB_RECORD_TREE = 1, LB_RECORD_PAD = 2, LB_RECORD_REQUEST = 3 };
enum { LB_FLAVOR_10 = 0, LB_FLAVOR_11 = 1, LB_FLAVOR_2 = 2 };
enum { LB_BODY_NONE = 0, LB_BODY_LENGTH = 1, LB_BODY_CHUNKED = 2, LB_BODY_UNTIL_CLOSE = 3 };
enum { LB_VALUE_BOOL = 1, LB_VALUE_INT32 = 2, LB_VALUE_INT64 = 3, LB_VALUE_STRING = 4, LB_VALUE_STRINGS = 5 };

// Why a producer dropped a tree.
enum { LB_DROP_RING_FULL = 0, LB_DROP_TOO_LARGE = 1, LB_DROP_REASONS = 2 };

// Death records of one slot, and what the low half of their word says.
#define LB_DEATHS 4u
enum { LB_DEATH_NONE = 0, LB_DEATH_NOTED = 1, LB_DEATH_HANDLED = 2 };

struct lb_segment_header {
    // Constant after creation.
    uint64_t magic;
    uint32_t layout_version;
    uint32_t ring_count;
    uint64_t ring_bytes;
    uint64_t segment_bytes;
    uint64_t rings_offset;
    uint32_t generation;
    int32_t master_pid;
    uint64_t created_unix_ns;
    uint64_t inflight_offset;
    // Stored by the consumer, exchanged by producers.
    uint32_t consumer_asleep;
    uint8_t reserved1[LB_CACHE_LINE_BYTES - 4];
    // Stored by the consumer.
    int32_t consumer_pid;
    uint32_t reserved2;
    uint64_t consumer_started_ns;
    uint64_t consumer_heartbeat_ns;
    uint8_t reserved3[LB_CACHE_LINE_BYTES - 24];
};

// How one process that filled a slot ended.
struct lb_death_record {
    // incarnation << 32 | LB_DEATH_*. Stored by the master, exchanged by the consumer.
    uint64_t word;
    // Stored by the master before `word`.
    uint64_t unix_ns;
    uint64_t ring_tail;  // where the ring's records ended
    int32_t signal;      // 0: it exited by itself
    uint8_t reserved[LB_CACHE_LINE_BYTES - 28];
};

// Entries of one table, and what the low half of an entry's word says: where its request stands.
#define LB_INFLIGHT_ENTRIES 1024u
enum {
    LB_INFLIGHT_FREE = 0,
    LB_INFLIGHT_WAITING = 1,  // for a connection to a backend
    LB_INFLIGHT_CONNECTING = 2,
    LB_INFLIGHT_AWAITING_RESPONSE = 3,
    LB_INFLIGHT_STREAMING_RESPONSE = 4,
    LB_INFLIGHT_TUNNEL = 5,
    LB_INFLIGHT_ANSWERING = 6,   // by the worker itself
    LB_INFLIGHT_PUBLISHING = 7,  // the request is over, its tree is about to be seen
};
#define LB_INFLIGHT_METHOD_BYTES 32u
#define LB_INFLIGHT_BACKEND_BYTES 64u
#define LB_INFLIGHT_AUTHORITY_BYTES 96u
#define LB_INFLIGHT_PATH_BYTES 216u

// One request in flight. Stored by the worker; the word is also cleared by the consumer once the worker is dead.
struct lb_inflight_entry {
    uint64_t word;
    uint64_t trace_id_high;
    uint64_t trace_id_low;
    uint64_t span_id;         // of proxy_request
    uint64_t parent_span_id;  // 0: the caller sent none
    uint64_t start_unix_ns;
    uint64_t attempt_span_id;   // of backend_request, 0: nothing has gone upstream
    uint64_t attempt_start_ns;  // counted from start_unix_ns, as the next one
    uint64_t response_start_ns;
    uint64_t publish_tail;
    uint64_t connection;  // number within the worker of the one that the attempt uses, 0: it is not traced
    int32_t backend;  // index, -1: none yet
    uint16_t status;  // of the response that began, 0: none yet
    uint16_t path_bytes;
    uint8_t trace_flags;
    uint8_t method_bytes;
    uint8_t authority_bytes;
    uint8_t backend_bytes;
    uint8_t is_secure;  // the client came by https
    uint8_t is_http2;   // the attempt goes to the backend in HTTP/2
    uint8_t reserved[2];
    // Texts, cut to fit. The path is without a query, which may hold secrets.
    uint8_t method[LB_INFLIGHT_METHOD_BYTES];
    uint8_t backend_host[LB_INFLIGHT_BACKEND_BYTES];
    uint8_t authority[LB_INFLIGHT_AUTHORITY_BYTES];
    uint8_t path[LB_INFLIGHT_PATH_BYTES];
};

// Of one table. Stored by the worker that owns it.
struct lb_inflight_header {
    uint64_t used;  // entries that were ever in use; those behind are untouched
    // What the ids of the worker's connection traces are made from, 0: there are none.
    uint64_t connection_high_seed;
    uint64_t connection_low_seed;
    uint64_t connection_span_seed;
    uint8_t reserved[LB_CACHE_LINE_BYTES - 32];
};

struct lb_ring_header {
    // Stored by the producer when it attaches.
    int32_t owner_pid;
    uint32_t owner_generation;
    uint64_t owner_started_ns;
    uint8_t reserved0[LB_CACHE_LINE_BYTES - 16];
    // Stored by the producer, release.
    uint64_t tail;
    uint8_t reserved1[LB_CACHE_LINE_BYTES - 8];
    // Stored by the consumer, release.
    uint64_t head;
    uint8_t reserved2[LB_CACHE_LINE_BYTES - 8];
    // Stored by the producer, relaxed; read by anybody.
    uint64_t trees_published;
    uint64_t spans_published;
    uint64_t trees_dropped[LB_DROP_REASONS];
    uint64_t values_cut;
    uint8_t reserved3[LB_CACHE_LINE_BYTES - 40];
    struct lb_death_record deaths[LB_DEATHS];
    struct lb_inflight_header inflight[LB_DEATHS];
};

struct lb_record_header {
    uint32_t size_bytes;  // whole record, this header included, a multiple of 8
    uint16_t kind;
    uint16_t reserved;
};

struct lb_tree_header {
    struct lb_record_header record;
    uint8_t trace_id[16];
    uint64_t parent_span_id;  // 0: the root has no parent
    uint64_t base_unix_ns;    // every time in the tree counts from here
    uint16_t span_count;
    uint8_t trace_flags;       // W3C trace flags
    uint8_t reserved0;
    uint32_t trace_state_bytes;
};

struct lb_span_header {
    uint64_t span_id;
    uint64_t start_offset_ns;
    uint64_t end_offset_ns;
    uint32_t body_bytes;  // attributes, events and links behind this header
    uint16_t attribute_count;
    uint16_t event_count;
    uint8_t name;
    uint8_t kind;          // as in OTLP: 1 internal, 2 server, 3 client
    uint8_t status;        // as in OTLP: 0 unset, 1 ok, 2 error
    uint8_t parent_index;  // of an earlier span of this tree; LB_PARENT_NONE: the tree's parent_span_id
    uint16_t link_count;
    uint16_t reserved0;
};

struct lb_event_header {
    uint64_t offset_ns;
    uint32_t body_bytes;
    uint16_t attribute_count;
    uint8_t name;
    uint8_t reserved0;
};

// To a span of another trace.
struct lb_link_header {
    uint64_t trace_id_high;  // halves of the id as in its hexadecimal text
    uint64_t trace_id_low;
    uint64_t span_id;
    uint32_t body_bytes;
    uint16_t attribute_count;
    uint8_t trace_flags;  // W3C trace flags of the other trace
    uint8_t reserved0;
};

struct lb_attribute_header {
    uint16_t key;
    uint8_t type;
    uint8_t reserved0;
    uint32_t value;
};

// Every text is ASCII and at most 1,024 bytes. Times count from base_unix_ns.
struct lb_request_header {
    struct lb_record_header record;
    uint64_t trace_id_high;  // halves of the id as in its hexadecimal text
    uint64_t trace_id_low;
    uint64_t parent_span_id;  // 0: the root has no parent
    uint64_t base_unix_ns;
    uint64_t root_span_id;
    uint64_t selection_span_id;
    uint64_t connection_span_id;
    uint64_t acquire_span_id;
    uint64_t request_span_id;
    uint64_t streaming_span_id;
    uint64_t connection_number;
    uint64_t link_trace_id_high;  // of the connection's trace, to which the attempt's span has a link
    uint64_t link_trace_id_low;
    uint64_t link_span_id;  // 0: there is no link
    uint32_t selection_start_ns;
    uint32_t selection_end_ns;  // and the start of connection and acquisition
    uint32_t connection_end_ns;
    uint32_t acquire_end_ns;
    uint32_t request_start_ns;  // HTTP/2: number of the stream
    uint32_t request_end_ns;  // HTTP/2: streams on the connection when it was opened
    uint32_t streaming_start_ns;
    uint32_t end_ns;  // of the streaming and of the root, which starts at 0
    uint32_t status;
    uint32_t request_bytes;
    uint32_t response_bytes;
    uint32_t body_expected_bytes;  // with LB_BODY_LENGTH only
    uint32_t body_bytes;
    uint32_t backend_index;
    uint32_t backend_count;
    uint32_t healthy_count;
    uint32_t idle_count;
    uint32_t active_count;
    uint32_t peer_port;
    uint32_t worker;
    uint32_t generation;
    uint16_t method_bytes;
    uint16_t url_bytes;
    uint16_t host_bytes;
    uint16_t user_agent_bytes;  // 0: none
    uint16_t peer_ip_bytes;
    uint16_t backend_bytes;  // of its name
    uint16_t strategy_bytes;
    uint8_t trace_flags;  // W3C trace flags
    uint8_t http_flavor;  // the client's: LB_FLAVOR_...
    uint8_t body_type;
    uint8_t has_request_bytes;
    uint16_t backend_flavor;  // LB_FLAVOR_2; 0: HTTP/1.1
};

_Static_assert(sizeof(struct lb_segment_header) == 3 * LB_CACHE_LINE_BYTES, "consumer fields have lines of their own");
_Static_assert(offsetof(struct lb_segment_header, consumer_asleep) == LB_CACHE_LINE_BYTES, "flag on its own line");
_Static_assert(sizeof(struct lb_death_record) == LB_CACHE_LINE_BYTES, "one record a cache line");
_Static_assert(sizeof(struct lb_inflight_entry) == 512, "fixed by the layout");
_Static_assert(offsetof(struct lb_inflight_entry, method) == 104, "fixed by the layout");
_Static_assert(sizeof(struct lb_ring_header) == (4 + 2 * LB_DEATHS) * LB_CACHE_LINE_BYTES, "one writer per cache line");
_Static_assert(offsetof(struct lb_ring_header, deaths) == 256, "deaths on lines of their own");
_Static_assert(offsetof(struct lb_ring_header, tail) == 64, "tail on its own line");
_Static_assert(offsetof(struct lb_ring_header, head) == 128, "head on its own line");
_Static_assert(sizeof(struct lb_record_header) == 8, "fixed by the layout");
_Static_assert(sizeof(struct lb_tree_header) == 48, "fixed by the layout");
_Static_assert(sizeof(struct lb_span_header) == 40, "fixed by the layout");
_Static_assert(sizeof(struct lb_event_header) == 16, "fixed by the layout");
_Static_assert(sizeof(struct lb_link_header) == 32, "fixed by the layout");
_Static_assert(sizeof(struct lb_attribute_header) == 8, "fixed by the layout");
_Static_assert(sizeof(struct lb_request_header) == 224, "fixed by the layout");

static inline uint64_t lb_load_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t lb_load_relaxed(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void lb_store_release(uint64_t *p, uint64_t value) { __atomic_store_n(p, value, __ATOMIC_RELEASE); }
static inline void lb_store_relaxed(uint64_t *p, uint64_t value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }
// A counter with one writer: no read-modify-write is needed, only an untorn store.
static inline void lb_count(uint64_t *p, uint64_t amount) {
    __atomic_store_n(p, __atomic_load_n(p, __ATOMIC_RELAXED) + amount, __ATOMIC_RELAXED);
}

// Master: fills a death record, which is out of sight while its fields change.
static inline void lb_note_death(struct lb_ring_header *ring, uint32_t incarnation, int32_t signal, uint64_t unix_ns) {
    struct lb_death_record *record = &ring->deaths[incarnation % LB_DEATHS];
    __atomic_store_n(&record->word, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    record->unix_ns = unix_ns;
    record->signal = signal;
    record->ring_tail = lb_load_acquire(&ring->tail);
    lb_store_release(&record->word, (uint64_t)incarnation << 32 | LB_DEATH_NOTED);
}

// Consumer: for words that somebody else may store meanwhile.
static inline int lb_exchange_word(uint64_t *p, uint64_t expected, uint64_t value) {
    return __atomic_compare_exchange_n(p, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
// Consumer: copies an entry that may change under its hands. True when its word stood still meanwhile.
static inline int lb_copy_inflight_entry(const struct lb_inflight_entry *from, struct lb_inflight_entry *to) {
    const uint64_t before = lb_load_acquire(&from->word);
    memcpy(to, from, sizeof *to);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    to->word = before;
    return lb_load_relaxed(&from->word) == before;
}

// Consumer: announces that it is about to sleep. The fence orders the store before the last look at the rings.
static inline void lb_consumer_falls_asleep(struct lb_segment_header *s) {
    __atomic_store_n(&s->consumer_asleep, 1u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
static inline void lb_consumer_is_awake(struct lb_segment_header *s) {
    __atomic_store_n(&s->consumer_asleep, 0u, __ATOMIC_RELAXED);
}
// Producer, after storing tail: true for the one producer that must write the eventfd.
static inline int lb_consumer_needs_wake(struct lb_segment_header *s) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->consumer_asleep, __ATOMIC_RELAXED) == 0) return 0;
    return __atomic_exchange_n(&s->consumer_asleep, 0u, __ATOMIC_ACQ_REL) == 1;
}

#endif
