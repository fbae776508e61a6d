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
//
// One ring belongs to one worker slot and has one producer and one consumer. `tail` and `head` are counts
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
// `span_count` times { lb_span_header, its attributes, its events { lb_event_header, attributes } }.
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
// Deaths: the master, having reaped a worker that did not end in order, fills the slot's death record number
// incarnation % LB_DEATHS and stores its word, release, last. The consumer, having dealt with it, exchanges the
// word for the same incarnation with LB_DEATH_HANDLED. A record that is overwritten before that is lost.
//
// There are no pointers in the segment. A producer that dies in mid-write leaves unpublished bytes only.
#ifndef LB_SHM_LAYOUT_H
#define LB_SHM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define LB_SHM_MAGIC 0x73676e6972706e61ull
#define LB_SHM_LAYOUT_VERSION 2u
#define LB_PAGE_BYTES 4096u
#define LB_CACHE_LINE_BYTES 64u
#define LB_RECORD_BYTES_MAX 65536u
#define LB_PARENT_NONE 0xffu

enum { LB_RECORD_TREE = 1, LB_RECORD_PAD = 2 };
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
    uint8_t reserved0[8];
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
    int32_t signal;  // 0: it exited by itself
    uint8_t reserved[LB_CACHE_LINE_BYTES - 20];
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
    uint32_t body_bytes;  // attributes and events behind this header
    uint16_t attribute_count;
    uint16_t event_count;
    uint8_t name;
    uint8_t kind;          // as in OTLP: 1 internal, 2 server, 3 client
    uint8_t status;        // as in OTLP: 0 unset, 1 ok, 2 error
    uint8_t parent_index;  // of an earlier span of this tree; LB_PARENT_NONE: the tree's parent_span_id
    uint32_t reserved0;
};

struct lb_event_header {
    uint64_t offset_ns;
    uint32_t body_bytes;
    uint16_t attribute_count;
    uint8_t name;
    uint8_t reserved0;
};

struct lb_attribute_header {
    uint16_t key;
    uint8_t type;
    uint8_t reserved0;
    uint32_t value;
};

_Static_assert(sizeof(struct lb_segment_header) == 3 * LB_CACHE_LINE_BYTES, "consumer fields have lines of their own");
_Static_assert(offsetof(struct lb_segment_header, consumer_asleep) == LB_CACHE_LINE_BYTES, "flag on its own line");
_Static_assert(sizeof(struct lb_death_record) == LB_CACHE_LINE_BYTES, "one record a cache line");
_Static_assert(sizeof(struct lb_ring_header) == (4 + LB_DEATHS) * LB_CACHE_LINE_BYTES, "one writer per cache line");
_Static_assert(offsetof(struct lb_ring_header, deaths) == 256, "deaths on lines of their own");
_Static_assert(offsetof(struct lb_ring_header, tail) == 64, "tail on its own line");
_Static_assert(offsetof(struct lb_ring_header, head) == 128, "head on its own line");
_Static_assert(sizeof(struct lb_record_header) == 8, "fixed by the layout");
_Static_assert(sizeof(struct lb_tree_header) == 48, "fixed by the layout");
_Static_assert(sizeof(struct lb_span_header) == 40, "fixed by the layout");
_Static_assert(sizeof(struct lb_event_header) == 16, "fixed by the layout");
_Static_assert(sizeof(struct lb_attribute_header) == 8, "fixed by the layout");

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
    lb_store_release(&record->word, (uint64_t)incarnation << 32 | LB_DEATH_NOTED);
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
