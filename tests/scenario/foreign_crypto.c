/* What another library of the same process may bring along: functions of the names that our own
 * parts use, with other meanings. Whoever binds to them gets nonsense. */
#include <stddef.h>
#include <string.h>

#define NONSENSE(name) \
  int name(void);      \
  int name(void) { return 0; }

NONSENSE(EVP_DigestInit_ex)
NONSENSE(EVP_DigestUpdate)
NONSENSE(EVP_DigestFinal_ex)
NONSENSE(EVP_MD_CTX_new)
NONSENSE(EVP_sha256)
NONSENSE(SHA256_Init)
NONSENSE(SHA256_Update)
NONSENSE(SHA256_Final)
NONSENSE(OPENSSL_init_crypto)
NONSENSE(OPENSSL_cpuid_setup)
NONSENSE(io_uring_queue_init)
NONSENSE(io_uring_queue_init_params)
NONSENSE(io_uring_submit)
NONSENSE(io_uring_get_sqe)
NONSENSE(XXH3_64bits)
NONSENSE(XXH64)
NONSENSE(terrace_private)

unsigned char* SHA256(const unsigned char* bytes, size_t count, unsigned char* digest);
unsigned char* SHA256(const unsigned char* bytes, size_t count, unsigned char* digest) {
  (void)bytes;
  (void)count;
  memset(digest, 0x5A, 32);
  return digest;
}
