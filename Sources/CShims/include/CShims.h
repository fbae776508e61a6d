// The C that Swift cannot import or express by itself. Nothing here holds state except the process title and the memory
// of HTTP/2 sessions, and nothing decides anything: policy lives in the Swift modules.
#ifndef LB_CSHIMS_H
#define LB_CSHIMS_H

#include "descriptor_passing.h"
#include "handshake_count.h"
#include "platform.h"
#include "shm_layout.h"
#include "curl_shims.h"
#include "process_care.h"
#include "session_memory.h"
#include "tcp_totals.h"
#include "nghttp2_shims.h"
#include "openssl_shims.h"

#endif
