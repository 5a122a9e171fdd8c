// Where the keys come from: the options, or a profile of a credentials file that may change.
// Threading: thread-compatible; the store's thread owns it.  Waits: on the file alone.
#pragma once

#include <sys/types.h>

#include <ctime>
#include <string>
#include <string_view>

#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::transfer::s3 {

// One profile of a credentials file. Errors: kRefused, with what is missing; never a secret.
[[nodiscard]] Result<S3Credentials> parse_credentials(std::string_view text,
                                                      std::string_view profile);

class CredentialSource {
 public:
  [[nodiscard]] static Result<CredentialSource> create(const S3Options& options);
  // Reads the file again when it changed; what cannot be read leaves those from before.
  const S3Credentials& current();
  // Reads it again in any case: the store refused these. True = there are others now.
  bool renew(const S3Credentials& refused);

 private:
  struct Stamp {
    ino_t inode = 0;
    off_t bytes = 0;
    std::timespec changed{};
    [[nodiscard]] bool is_same(const Stamp& other) const;
  };
  [[nodiscard]] Stamp stamp() const;
  [[nodiscard]] Status read();

  std::string file_;
  std::string profile_;
  Stamp seen_;
  S3Credentials credentials_;
};

}  // namespace terrace::transfer::s3
