#define _GNU_SOURCE
#include "include/session_memory.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

// The range of a session:
//
//     0      state │ blocks that the session is made of, then small ones
//     11 K   the frame buffer; its first bytes, which short frames take, share a page with what is before
//     27 K   small blocks
//     64 K   the end
//
// A block is a header and what the caller gets, which is aligned to 16 bytes. Small blocks that were freed are kept in
// lists by their size; large ones are freed with the session.
enum {
    PAGE_BYTES = 4096,
    RANGE_BYTES = 64 * 1024,
    UNIT_BYTES = 16,
    HEADER_BYTES = 8,
    SMALL_BYTES_MAX = 512,
    SMALL_UNITS_MAX = (SMALL_BYTES_MAX + HEADER_BYTES + UNIT_BYTES - 1) / UNIT_BYTES,
    // The frame buffer is the only block above this.
    MIDDLE_BYTES_MAX = 8192,
    FRAME_BUFFER_BYTES_MAX = 16384 + 64,
    SHORT_FRAME_BYTES = 1024,
    FRAME_PAGES_START = 3 * PAGE_BYTES,
    FRAME_START = FRAME_PAGES_START - SHORT_FRAME_BYTES - UNIT_BYTES - HEADER_BYTES,
    FRAME_END = FRAME_START + HEADER_BYTES + FRAME_BUFFER_BYTES_MAX + HEADER_BYTES,
    // Pages that hold nothing but frames.
    FRAME_PAGES_END = FRAME_END / PAGE_BYTES * PAGE_BYTES,
    RANGES_PER_CHUNK = 32,
    WARM_MAX = 16,
    CHUNK_BYTES = RANGES_PER_CHUNK * RANGE_BYTES,
    GROUP_WORDS = 64,
    GROUP_BYTES = GROUP_WORDS * 8,
};

_Static_assert(FRAME_START % UNIT_BYTES == HEADER_BYTES, "what follows the header of the frame buffer is aligned");
_Static_assert(FRAME_END % UNIT_BYTES == HEADER_BYTES, "so is what follows the frame buffer");

// At the beginning of the range, and packed with it. All 0 while it is: then the first use of it ends the process.
typedef struct {
    // By units: where the first free block is, in units; 0 for none.
    uint16_t free[SMALL_UNITS_MAX + 1];
    // Where nothing has been yet.
    uint32_t next;
    bool is_made;
    bool has_frame_buffer;
} state;

enum { FIRST_BLOCK = (sizeof(state) + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES + HEADER_BYTES };

typedef struct chunk chunk;

struct lb_session_memory {
    uint8_t *base;
    chunk *owner;
    // What is packed, NULL when nothing is.
    uint8_t *packed;
    size_t packed_bytes;
};

struct chunk {
    lb_session_pool *pool;
    // Of those with a free range.
    chunk *previous, *following;
    uint8_t *base;
    uint32_t free;
    lb_session_memory memories[RANGES_PER_CHUNK];
};

// What the content of a range takes at most, packed (see below).
enum {
    GROUPS = RANGE_BYTES / GROUP_BYTES,
    PACKED_BYTES_MAX = GROUPS * (sizeof(uint16_t) + sizeof(uint64_t) + GROUP_WORDS * (1 + sizeof(uint64_t))),
};

struct lb_session_pool {
    chunk *with_room;
    size_t chunks;
    // Ranges that keep their pages for the next sessions: with short connections, faults would cost more than all else.
    lb_session_memory *warm[WARM_MAX];
    size_t warm_count;
    // Where content is packed before it is known how much that is; the last byte is never of use.
    uint8_t scratch[PACKED_BYTES_MAX + 1];
};

_Static_assert(RANGES_PER_CHUNK == 32, "one bit of `free` each");

// MARK: Ranges

lb_session_pool *lb_session_pool_new(void) {
    if (IS_SANITIZED || sysconf(_SC_PAGESIZE) != PAGE_BYTES) return NULL;
    lb_session_pool *pool = malloc(sizeof *pool);
    if (!pool) return NULL;
    pool->with_room = NULL;
    pool->chunks = 0;
    pool->warm_count = 0;
    return pool;
}

size_t lb_session_pool_mapped(const lb_session_pool *pool) { return pool->chunks * CHUNK_BYTES; }

static void link_chunk(chunk *one) {
    lb_session_pool *pool = one->pool;
    one->previous = NULL;
    one->following = pool->with_room;
    if (one->following) one->following->previous = one;
    pool->with_room = one;
}

static void unlink_chunk(chunk *one) {
    if (one->following) one->following->previous = one->previous;
    if (one->previous) {
        one->previous->following = one->following;
    } else {
        one->pool->with_room = one->following;
    }
}

static void free_chunk(chunk *one) {
    unlink_chunk(one);
    one->pool->chunks--;
    munmap(one->base, CHUNK_BYTES);
    free(one);
}

static chunk *make_chunk(lb_session_pool *pool) {
    chunk *one = calloc(1, sizeof *one);
    if (!one) return NULL;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *base = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (base == MAP_FAILED) {
        free(one);
        return NULL;
    }
    // One large page would make all of it resident.
    madvise(base, CHUNK_BYTES, MADV_NOHUGEPAGE);
    one->pool = pool;
    one->base = base;
    one->free = UINT32_MAX;
    for (size_t index = 0; index < RANGES_PER_CHUNK; index++) {
        one->memories[index] = (lb_session_memory){.base = base + index * RANGE_BYTES, .owner = one};
    }
    pool->chunks++;
    link_chunk(one);
    return one;
}

static lb_session_memory *cold_range(lb_session_pool *pool) {
    chunk *one = pool->with_room ? pool->with_room : make_chunk(pool);
    if (!one) return NULL;
    const int index = __builtin_ctz(one->free);
    one->free &= one->free - 1;
    if (one->free == 0) unlink_chunk(one);
    return &one->memories[index];
}

lb_session_memory *lb_session_memory_take(lb_session_pool *pool) {
    lb_session_memory *memory = pool->warm_count > 0 ? pool->warm[--pool->warm_count] : cold_range(pool);
    if (memory) ((state *)memory->base)->next = FIRST_BLOCK;
    return memory;
}

// Makes pages read as 0 again and gives their memory back.
static void clear_pages(uint8_t *base, size_t start, size_t end) {
    // Locked memory cannot be given back.
    if (madvise(base + start, end - start, MADV_DONTNEED) != 0) memset(base + start, 0, end - start);
}

static void cool(lb_session_memory *memory) {
    chunk *one = memory->owner;
    clear_pages(memory->base, 0, RANGE_BYTES);
    if (one->free == 0) link_chunk(one);
    one->free |= 1u << (memory - one->memories);
    const bool is_last = one->previous == NULL && one->following == NULL;
    if (one->free == UINT32_MAX && !is_last) free_chunk(one);
}

// All that has been a block is 0 again, save the frame buffer, from which nobody expects that.
static void clear_blocks(lb_session_memory *memory) {
    const uint32_t next = ((const state *)memory->base)->next;
    if (next > FRAME_END) memset(memory->base + FRAME_END, 0, next - FRAME_END);
    memset(memory->base, 0, next < FRAME_START ? next : FRAME_START);
}

void lb_session_memory_give(lb_session_memory *memory) {
    lb_session_pool *pool = memory->owner->pool;
    if (memory->packed || pool->warm_count == WARM_MAX) {
        free(memory->packed);
        memory->packed = NULL;
        return cool(memory);
    }
    clear_blocks(memory);
    pool->warm[pool->warm_count++] = memory;
}

void lb_session_pool_free(lb_session_pool *pool) {
    while (pool->warm_count > 0) cool(pool->warm[--pool->warm_count]);
    while (pool->with_room) free_chunk(pool->with_room);
    free(pool);
}

// MARK: Blocks

static bool is_inside(const lb_session_memory *memory, const void *pointer) {
    return (uintptr_t)pointer - (uintptr_t)memory->base < RANGE_BYTES;
}

// The header: how many units the block has with it.
static uint64_t *header(void *pointer) { return (uint64_t *)((uint8_t *)pointer - HEADER_BYTES); }

static void *block_at(lb_session_memory *memory, size_t start, size_t units) {
    void *pointer = memory->base + start + HEADER_BYTES;
    *header(pointer) = units;
    return pointer;
}

// A block where none has been, all 0; NULL when it does not fit.
static void *fresh_block(lb_session_memory *memory, size_t units) {
    state *now = (state *)memory->base;
    if (now->next == 0) __builtin_trap();
    const size_t bytes = units * UNIT_BYTES;
    if (now->next <= FRAME_START && now->next + bytes > FRAME_START) now->next = FRAME_END;
    if (now->next + bytes > RANGE_BYTES) return NULL;
    void *pointer = block_at(memory, now->next, units);
    now->next += (uint32_t)bytes;
    return pointer;
}

static void *frame_buffer(lb_session_memory *memory) {
    state *now = (state *)memory->base;
    if (now->has_frame_buffer || now->next > FRAME_START) return NULL;
    now->has_frame_buffer = true;
    return block_at(memory, FRAME_START, (FRAME_END - FRAME_START) / UNIT_BYTES);
}

// Blocks beyond the small ones are what sessions are made of; later there is no room for them.
static void *large_block(lb_session_memory *memory, size_t size) {
    const state *now = (const state *)memory->base;
    if (now->is_made || size > FRAME_BUFFER_BYTES_MAX) return NULL;
    if (size > MIDDLE_BYTES_MAX) return frame_buffer(memory);
    return fresh_block(memory, (size + HEADER_BYTES + UNIT_BYTES - 1) / UNIT_BYTES);
}

// A small block that was freed, NULL when there is none.
static void *used_block(lb_session_memory *memory, size_t units) {
    state *now = (state *)memory->base;
    const size_t first = now->free[units];
    if (first == 0) return NULL;
    void *pointer = memory->base + first * UNIT_BYTES;
    memcpy(&now->free[units], pointer, sizeof now->free[units]);
    return pointer;
}

static size_t small_units(size_t size) { return (size + HEADER_BYTES + UNIT_BYTES - 1) / UNIT_BYTES; }

static void *take(size_t size, void *context) {
    lb_session_memory *memory = context;
    void *pointer;
    if (size <= SMALL_BYTES_MAX) {
        pointer = used_block(memory, small_units(size));
        if (!pointer) pointer = fresh_block(memory, small_units(size));
    } else {
        pointer = large_block(memory, size);
    }
    return pointer ? pointer : malloc(size);
}

static void *take_zeroed(size_t count, size_t size, void *context) {
    lb_session_memory *memory = context;
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    void *pointer;
    if (bytes <= SMALL_BYTES_MAX) {
        pointer = used_block(memory, small_units(bytes));
        if (pointer) return memset(pointer, 0, bytes);
        pointer = fresh_block(memory, small_units(bytes));
    } else {
        pointer = large_block(memory, bytes);
        // The frame buffer of a range that was in use before is as it was left.
        if (pointer && bytes > MIDDLE_BYTES_MAX) memset(pointer, 0, bytes);
    }
    return pointer ? pointer : calloc(count, size);
}

static void give(void *pointer, void *context) {
    lb_session_memory *memory = context;
    if (!is_inside(memory, pointer)) return free(pointer);
    const size_t units = *header(pointer);
    if (units == 0) __builtin_trap();
    if (units > SMALL_UNITS_MAX) return;
    state *now = (state *)memory->base;
    memcpy(pointer, &now->free[units], sizeof now->free[units]);
    now->free[units] = (uint16_t)(((uint8_t *)pointer - memory->base) / UNIT_BYTES);
}

static void *resize(void *pointer, size_t size, void *context) {
    lb_session_memory *memory = context;
    if (!pointer) return take(size, context);
    if (!is_inside(memory, pointer)) return realloc(pointer, size);
    const size_t room = *header(pointer) * UNIT_BYTES - HEADER_BYTES;
    if (size <= room) return pointer;
    void *larger = take(size, context);
    if (!larger) return NULL;
    memcpy(larger, pointer, room);
    give(pointer, context);
    return larger;
}

nghttp2_mem lb_session_memory_functions(lb_session_memory *memory) {
    return (nghttp2_mem){memory, take, give, take_zeroed, resize};
}

void lb_session_memory_made(lb_session_memory *memory) { ((state *)memory->base)->is_made = true; }

// MARK: Packing

// What is packed: for each group of words that are not all 0, its place in the range, a bit for each word that is not 0,
// and for each of those words a bit for each byte that is not 0, and those bytes.

size_t lb_session_memory_short_frame_bytes(void) { return SHORT_FRAME_BYTES; }

size_t lb_session_memory_packed_bytes(const lb_session_memory *memory) {
    return memory->packed ? memory->packed_bytes : 0;
}

// Free blocks hold nothing but the way to the next one.
static void clear_free_blocks(lb_session_memory *memory) {
    const state *now = (const state *)memory->base;
    for (size_t units = 1; units <= SMALL_UNITS_MAX; units++) {
        uint16_t place = now->free[units];
        while (place != 0) {
            uint8_t *pointer = memory->base + (size_t)place * UNIT_BYTES;
            memcpy(&place, pointer, sizeof place);
            memset(pointer + sizeof place, 0, units * UNIT_BYTES - HEADER_BYTES - sizeof place);
        }
    }
}

// The pages that are packed, as bits: those that are surely without content, or whose content is not worth it, are not.
static uint32_t pages_to_pack(const lb_session_memory *memory, bool sent_long_frames) {
    const uint32_t next = ((const state *)memory->base)->next;
    const uint32_t end = next > FRAME_END ? next : sent_long_frames ? FRAME_END : FRAME_PAGES_START;
    const uint32_t used = (1u << ((end + PAGE_BYTES - 1) / PAGE_BYTES)) - 1;
    const uint32_t frames = (1u << (FRAME_PAGES_END / PAGE_BYTES)) - (1u << (FRAME_PAGES_START / PAGE_BYTES));
    return sent_long_frames ? used : used & ~frames;
}

_Static_assert(RANGE_BYTES / PAGE_BYTES < 32, "one bit for each page, and one more");

static uint64_t word_at(const uint8_t *group, size_t index) {
    uint64_t word;
    memcpy(&word, group + index * sizeof word, sizeof word);
    return word;
}

static uint64_t words_in_use(const uint8_t *group) {
    uint64_t bits = 0;
    for (size_t index = 0; index < GROUP_WORDS; index++) bits |= (uint64_t)(word_at(group, index) != 0) << index;
    return bits;
}

static uint8_t *put_word(uint8_t *to, uint64_t word) {
    uint8_t *bits = to++;
    *bits = 0;
    for (unsigned index = 0; index < sizeof word; index++) {
        const uint8_t byte = (uint8_t)(word >> 8 * index);
        *to = byte;
        to += byte != 0;
        *bits |= (uint8_t)((byte != 0) << index);
    }
    return to;
}

static const uint8_t *get_word(const uint8_t *from, uint8_t *to) {
    uint64_t word = 0;
    for (unsigned rest = *from++; rest; rest &= rest - 1) word |= (uint64_t)*from++ << 8 * __builtin_ctz(rest);
    memcpy(to, &word, sizeof word);
    return from;
}

static uint8_t *put_group(uint8_t *to, const lb_session_memory *memory, uint16_t group) {
    const uint8_t *from = memory->base + (size_t)group * GROUP_BYTES;
    const uint64_t bits = words_in_use(from);
    if (!bits) return to;
    memcpy(to, &group, sizeof group);
    memcpy(to + sizeof group, &bits, sizeof bits);
    to += sizeof group + sizeof bits;
    for (uint64_t rest = bits; rest; rest &= rest - 1) to = put_word(to, word_at(from, (size_t)__builtin_ctzll(rest)));
    return to;
}

static const uint8_t *get_group(const uint8_t *from, const lb_session_memory *memory) {
    uint16_t group;
    uint64_t bits;
    memcpy(&group, from, sizeof group);
    memcpy(&bits, from + sizeof group, sizeof bits);
    from += sizeof group + sizeof bits;
    uint8_t *to = memory->base + (size_t)group * GROUP_BYTES;
    for (uint64_t rest = bits; rest; rest &= rest - 1) from = get_word(from, to + (size_t)__builtin_ctzll(rest) * 8);
    return from;
}

static void clear_each(const lb_session_memory *memory, uint32_t pages) {
    while (pages) {
        const size_t first = (size_t)__builtin_ctz(pages);
        const size_t count = (size_t)__builtin_ctz(~(pages >> first));
        clear_pages(memory->base, first * PAGE_BYTES, (first + count) * PAGE_BYTES);
        pages &= ~(((1u << count) - 1) << first);
    }
}

int lb_session_memory_pack(lb_session_memory *memory, int sent_long_frames) {
    if (memory->packed) return 0;
    clear_free_blocks(memory);
    const uint32_t pages = pages_to_pack(memory, sent_long_frames != 0);
    uint8_t *scratch = memory->owner->pool->scratch, *end = scratch;
    for (uint16_t group = 0; group < GROUPS; group++) {
        if (pages >> group / (PAGE_BYTES / GROUP_BYTES) & 1) end = put_group(end, memory, group);
    }
    memory->packed_bytes = (size_t)(end - scratch);
    memory->packed = malloc(memory->packed_bytes);
    if (!memory->packed) return 0;
    memcpy(memory->packed, scratch, memory->packed_bytes);
    clear_each(memory, pages);
    return 1;
}

void lb_session_memory_wake(lb_session_memory *memory) {
    if (!memory->packed) return;
    const uint8_t *from = memory->packed, *end = from + memory->packed_bytes;
    while (from < end) from = get_group(from, memory);
    free(memory->packed);
    memory->packed = NULL;
}
