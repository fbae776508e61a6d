// OpenSSL's macros, which Swift cannot call, and what its stacks and parameter lists make awkward there. Each is
// one call, or one walk through a structure. Policy lives in Sources/Worker/TLS.
#ifndef LB_OPENSSL_SHIMS_H
#define LB_OPENSSL_SHIMS_H

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <string.h>

static const uint64_t lb_ssl_options_common = SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION;
static const uint64_t lb_ssl_options_server =
    SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA;

// Records leave one at a time, from memory that may move between tries; buffers are given back between records.
static inline void lb_ssl_ctx_set_modes(SSL_CTX *ctx) {
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
}
static inline int lb_ssl_ctx_set_min_version(SSL_CTX *ctx, int version) {
    return (int)SSL_CTX_set_min_proto_version(ctx, version);
}
static inline int lb_ssl_ctx_set_groups(SSL_CTX *ctx, const char *names) {
    return (int)SSL_CTX_set1_groups_list(ctx, names);
}
// Tickets only: a session that is kept in one process would be of no use to the others.
static inline void lb_ssl_ctx_keep_no_sessions(SSL_CTX *ctx) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
}
static inline void lb_ssl_ctx_hand_out_sessions(SSL_CTX *ctx) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
}
static inline void lb_ssl_ctx_set_owner(SSL_CTX *ctx, void *owner) { SSL_CTX_set_app_data(ctx, owner); }
static inline void *lb_ssl_ctx_owner(const SSL_CTX *ctx) { return SSL_CTX_get_app_data(ctx); }
static inline void lb_ssl_set_owner(SSL *ssl, void *owner) { SSL_set_app_data(ssl, owner); }
static inline void *lb_ssl_owner(const SSL *ssl) { return SSL_get_app_data(ssl); }

typedef void (*lb_ssl_info_callback)(const SSL *ssl, int place, int result);
typedef int (*lb_ssl_name_callback)(SSL *ssl, int *alert, void *argument);
static inline void lb_ssl_ctx_set_name_callback(SSL_CTX *ctx, lb_ssl_name_callback callback) {
    SSL_CTX_set_tlsext_servername_callback(ctx, callback);
}
typedef int (*lb_ssl_status_callback)(SSL *ssl, void *argument);
static inline void lb_ssl_ctx_set_status_callback(SSL_CTX *ctx, lb_ssl_status_callback callback) {
    SSL_CTX_set_tlsext_status_cb(ctx, callback);
}
// Gives OpenSSL a copy, which it frees.
static inline int lb_ssl_staple(SSL *ssl, const unsigned char *response, size_t count) {
    unsigned char *copy = OPENSSL_memdup(response, count);
    if (copy == NULL) return 0;
    if (SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)count) == 1) return 1;
    OPENSSL_free(copy);
    return 0;
}
static inline int lb_ssl_set_server_name(SSL *ssl, const char *name) { return (int)SSL_set_tlsext_host_name(ssl, name); }
// From now on an end of the socket without close_notify is an end like any other.
static inline void lb_ssl_accept_bare_end(SSL *ssl) { SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF); }

// The name that the client asked for, or NULL.
static inline const char *lb_ssl_server_name(const SSL *ssl) { return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name); }

static inline void lb_bio_retry_read(BIO *bio) { BIO_set_retry_read(bio); }
static inline void lb_bio_retry_write(BIO *bio) { BIO_set_retry_write(bio); }
static inline void lb_bio_clear_retry(BIO *bio) { BIO_clear_retry_flags(bio); }
enum { LB_BIO_CTRL_EOF = BIO_CTRL_EOF, LB_BIO_CTRL_FLUSH = BIO_CTRL_FLUSH };

static inline int lb_error_reason(unsigned long error) { return ERR_GET_REASON(error); }
static inline int lb_error_is_system(unsigned long error) { return ERR_SYSTEM_ERROR(error); }

// Calls `visit` with each DNS name of a certificate; with its common name where there is none (RFC 6125 §6.4.4).
typedef void (*lb_name_visitor)(const char *bytes, size_t count, void *context);
static inline void lb_x509_visit_names(const X509 *certificate, lb_name_visitor visit, void *context) {
    int found = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int index = 0; index < sk_GENERAL_NAME_num(names); index++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
        if (name->type != GEN_DNS) continue;
        found = 1;
        visit((const char *)ASN1_STRING_get0_data(name->d.dNSName), (size_t)ASN1_STRING_length(name->d.dNSName), context);
    }
    GENERAL_NAMES_free(names);
    if (found) return;
    char common[256];
    int count = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common, sizeof common);
    if (count > 0) visit(common, strlen(common), context);
}

// What a client showed in its handshake: its subject as RFC 4514 writes it, with everything but printable ASCII
// escaped, and the SHA-256 of the certificate. The length of the subject, -1 without a certificate, -2 when the subject
// has no room.
static inline int lb_ssl_client_identity(const SSL *ssl, char *subject, int room, unsigned char *fingerprint) {
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    if (certificate == NULL) return -1;
    unsigned count = 32;
    int result = -2;
    BIO *text = BIO_new(BIO_s_mem());
    if (text != NULL && X509_digest(certificate, EVP_sha256(), fingerprint, &count) == 1
        && X509_NAME_print_ex(text, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0) {
        char *bytes = NULL;
        long length = BIO_get_mem_data(text, &bytes);
        if (length >= 0 && length <= room) {
            memcpy(subject, bytes, (size_t)length);
            result = (int)length;
        }
    }
    BIO_free(text);
    X509_free(certificate);
    return result;
}

// -1 when the certificate is not valid yet, 1 when it is no longer, 0 when it is.
static inline int lb_x509_validity(const X509 *certificate) {
    if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) return -1;
    return X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0 ? 1 : 0;
}

// Whether an OCSP response (RFC 6960) says that a certificate is good, and whether it still does: 1, 0 when it is
// about another certificate, -1 when it cannot be read, -2 when the certificate is not good, -3 when it is too old.
static inline int lb_ocsp_check(const unsigned char *bytes, long count, const X509 *certificate) {
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &bytes, count);
    OCSP_BASICRESP *basic = response == NULL ? NULL : OCSP_response_get1_basic(response);
    int result = basic == NULL ? -1 : 0;
    for (int index = 0; basic != NULL && index < OCSP_resp_count(basic); index++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, index);
        ASN1_INTEGER *serial = NULL;
        OCSP_id_get0_info(NULL, NULL, NULL, &serial, (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(single));
        if (serial == NULL || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) != 0) continue;
        ASN1_GENERALIZEDTIME *this_update = NULL, *next_update = NULL;
        int status = OCSP_single_get0_status(single, NULL, NULL, &this_update, &next_update);
        if (status != V_OCSP_CERTSTATUS_GOOD) result = -2;
        else result = OCSP_check_validity(this_update, next_update, 300, -1) == 1 ? 1 : -3;
        break;
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    return result;
}

// What seals the tickets of one epoch.
struct lb_ticket_keys {
    unsigned char name[16];
    unsigned char cipher[32];
    unsigned char mac[32];
};

// All that must not be read by anybody. It is worked on in place; what is left on the stack is wiped.
struct lb_ticket_secrets {
    unsigned char secret[32];
    struct lb_ticket_keys current;
    struct lb_ticket_keys previous;
};

static inline unsigned char *lb_ticket_secret(struct lb_ticket_secrets *all) { return all->secret; }
static inline struct lb_ticket_keys *lb_ticket_current(struct lb_ticket_secrets *all) { return &all->current; }
static inline struct lb_ticket_keys *lb_ticket_previous(struct lb_ticket_secrets *all) { return &all->previous; }

// HMAC-SHA256 of one short text with a key of 32 bytes; `out` may be the key.
static inline int lb_ticket_derive(const unsigned char *key, const char *label, unsigned char *out, size_t out_bytes) {
    unsigned char whole[32] = {0};
    unsigned count = sizeof whole;
    int is_derived = HMAC(EVP_sha256(), key, 32, (const unsigned char *)label, strlen(label), whole, &count) != NULL;
    memcpy(out, whole, out_bytes);
    OPENSSL_cleanse(whole, sizeof whole);
    return is_derived;
}

static inline int lb_ticket_keys_of(const unsigned char *secret, struct lb_ticket_keys *keys) {
    return lb_ticket_derive(secret, "name", keys->name, sizeof keys->name)
        && lb_ticket_derive(secret, "cipher", keys->cipher, sizeof keys->cipher)
        && lb_ticket_derive(secret, "mac", keys->mac, sizeof keys->mac);
}

// The secret of the next epoch takes the place of this one's.
static inline int lb_ticket_next(struct lb_ticket_secrets *all) {
    return lb_ticket_derive(all->secret, "next", all->secret, sizeof all->secret);
}

// The secret is that of the epoch before the one that seals.
static inline int lb_ticket_turn(struct lb_ticket_secrets *all) {
    unsigned char next[32];
    int is_derived = lb_ticket_keys_of(all->secret, &all->previous)
        && lb_ticket_derive(all->secret, "next", next, sizeof next) && lb_ticket_keys_of(next, &all->current);
    OPENSSL_cleanse(next, sizeof next);
    return is_derived;
}

// Prepares the sealing or opening of a session ticket: AES-256-CBC, then HMAC-SHA256 (RFC 5077 §4).
static inline int lb_ticket_prepare(
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, const struct lb_ticket_keys *keys, const unsigned char *iv, int seals) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)keys->mac, sizeof keys->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"sha256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys->cipher, iv, seals) == 1
        && EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

static inline int lb_ssl_match_address(SSL *ssl, const char *ip) {
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), ip);
}

#endif
