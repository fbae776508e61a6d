// libcurl's option setters and getters are variadic macros, which Swift cannot call; each wrapper here is
// one such call with its argument's type fixed. Policy lives in the Exporter module's CurlTransport.
#ifndef LB_CURL_SHIMS_H
#define LB_CURL_SHIMS_H

#include <curl/curl.h>
#include <stddef.h>

// What libcurl calls with each piece of an answer's body; fewer bytes returned than given end the transfer.
typedef size_t (*lb_curl_receiver)(char *bytes, size_t size, size_t count, void *context);

static inline CURLcode lb_curl_set_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}
// libcurl copies the string.
static inline CURLcode lb_curl_set_string(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}
// libcurl copies neither: the list must live as long as the handle, the body as long as the transfer.
static inline CURLcode lb_curl_set_headers(CURL *easy, struct curl_slist *headers) {
    return curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
}
static inline CURLcode lb_curl_set_body(CURL *easy, const void *bytes, size_t count) {
    CURLcode result = curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)count);
    return result != CURLE_OK ? result : curl_easy_setopt(easy, CURLOPT_POSTFIELDS, (const char *)bytes);
}
static inline CURLcode lb_curl_set_receiver(CURL *easy, lb_curl_receiver receiver, void *context) {
    CURLcode result = curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receiver);
    return result != CURLE_OK ? result : curl_easy_setopt(easy, CURLOPT_WRITEDATA, context);
}

// 0 when no answer's head arrived.
static inline long lb_curl_status(CURL *easy) {
    long status = 0;
    return curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK ? status : 0;
}
// From either form of Retry-After; 0 when there is none.
static inline long long lb_curl_retry_after_seconds(CURL *easy) {
    curl_off_t seconds = 0;
    return curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK ? (long long)seconds : 0;
}

#endif
