// Objects in a bucket of any store that speaks S3, over HTTP/1.1 with libcurl, which is looked for
// at run time: nothing of it is linked. One thread of its own moves the bytes.
// Threading: as ObjectStore, waits and bounds, too: `depth` connections at most, and for each of
// them buffers of 0.5 MiB. A deadline ends the transfer, so that the memory is free at the answer.
#pragma once

#include <memory>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/transfer/object_store.h"

namespace terrace::transfer {

struct S3Credentials {
  std::string key_id;
  std::string secret_key;
  std::string session_token;  // Of temporary credentials; else empty.
  bool operator==(const S3Credentials&) const = default;
};

struct S3Options {
  std::string endpoint;  // "https://s3.eu-west-1.amazonaws.com", "http://10.0.0.7:8333"
  std::string bucket;
  std::string prefix;  // "team/kv": what all names stand below; may be empty.
  std::string region = "us-east-1";
  // The bucket in the path, else in front of the host's name.
  bool uses_path_style = true;
  S3Credentials credentials;     // Without a key id: from the file.
  std::string credentials_file;  // As the AWS tools write it: [profile] and aws_access_key_id = …
  std::string profile = "default";
  std::string ca_file;  // Empty: those that the system trusts.
  std::string proxy;    // Empty: none, whatever the environment says.
  // SHA-256 over the content of each put, else CRC-32C alone (README: what it costs).
  bool signs_payload = true;
  unsigned depth = 16;
  Nanoseconds connect_limit = seconds(5);
  Nanoseconds stall_limit = seconds(30);  // Without a byte, where no deadline comes first.
};

// `clock` dates the signatures and measures deadlines. Asks the store nothing.
// Errors: kUnavailable = no libcurl.so.4, or one that is too old; kInvalid = an option, with its
// name; kRefused = no credentials where the options say; kExhausted = no thread or memory.
[[nodiscard]] Result<std::unique_ptr<ObjectStore>> make_s3_store(const S3Options& options,
                                                                 const Clock& clock, LogSink& log);

}  // namespace terrace::transfer
