// Memory of libnghttp2's sessions, made so that an idle one takes little.
//
// Each session gets a range of addresses of its own. What it is made of lies close together in the first pages; of the
// large buffer for frames, only the pages that frames reach are ever touched. A session that rests is packed: the bytes
// that are not 0 are copied into one block and the pages given back. Waking puts all of it back to where it was, so
// nothing here depends on what libnghttp2 keeps in its memory, only on that nobody uses a session that is packed.
//
// What finds no room in the range, and large blocks that come after the session was made, are malloc's. No threads: a
// pool and all that is taken from it belong to one.
#ifndef LB_SESSION_MEMORY_H
#define LB_SESSION_MEMORY_H

#include <nghttp2/nghttp2.h>
#include <stddef.h>

typedef struct lb_session_pool lb_session_pool;
typedef struct lb_session_memory lb_session_memory;

// NULL where there is none: without memory, and in builds with AddressSanitizer, which sees malloc's blocks only.
lb_session_pool *lb_session_pool_new(void);

// Everything that was taken has been given back.
void lb_session_pool_free(lb_session_pool *pool);

// Bytes of address space that the pool has; for tests.
size_t lb_session_pool_mapped(const lb_session_pool *pool);

// Memory for one session; NULL when there is none.
lb_session_memory *lb_session_memory_take(lb_session_pool *pool);

// Gives it back, packed or not: all blocks in it are gone. Those of malloc are their owner's to free before.
void lb_session_memory_give(lb_session_memory *memory);

// What libnghttp2 is to use. Valid until the memory is given back.
nghttp2_mem lb_session_memory_functions(lb_session_memory *memory);

// The session is made: from now on there are small blocks only.
void lb_session_memory_made(lb_session_memory *memory);

// Packs. `sent_long_frames` says that frames have been long, so that it is worth looking at the pages of the frame
// buffer; they stay as they are otherwise. Returns 0 when nothing has changed: packed already, or no memory.
int lb_session_memory_pack(lb_session_memory *memory, int sent_long_frames);

// Unpacks; does nothing where nothing is packed.
void lb_session_memory_wake(lb_session_memory *memory);

// Bytes that the packed content takes, 0 when nothing is packed.
size_t lb_session_memory_packed_bytes(const lb_session_memory *memory);

// A frame longer than this reaches pages that `lb_session_memory_pack` has to be told of.
size_t lb_session_memory_short_frame_bytes(void);

#endif
