// libnghttp2 as it is: framing, HPACK and the stream states of HTTP/2. Sessions and their callbacks belong to
// the Worker module's HTTP2 folder.
#ifndef LB_NGHTTP2_SHIMS_H
#define LB_NGHTTP2_SHIMS_H

#include <nghttp2/nghttp2.h>

#endif
