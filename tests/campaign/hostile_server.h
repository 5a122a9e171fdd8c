// An S3 server in memory that answers right, or not: errors, lies, cut and doubled answers, resets,
// and silence, from a seed. Objects are below the bucket `bucket`, path style.
// Threading: thread-safe.  Waits: at most kSilence, in the server's own threads.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "terrace/base/mutex.h"
#include "terrace/base/rng.h"
#include "terrace/transfer/backends/s3/http_script_rig.h"

namespace terrace::campaign {

class HostileServer {
 public:
  static constexpr int kSilenceMs = 100;
  // `percent` of the requests get a fault.
  HostileServer(std::uint64_t seed, unsigned percent);
  [[nodiscard]] std::string url() const { return script_->url(); }
  // From now on every answer is right.
  void be_kind();
  [[nodiscard]] std::map<std::string, std::uint64_t> injected() const;

 private:
  using Peer = testing::HttpPeer;
  using Seen = testing::SeenRequest;
  enum class Kind : std::uint8_t {
    kNone,
    kBusy,
    kBroken,
    kGarbage,
    kReset,
    kSilence,
    kTwice,
    kFlip,
    kShort,
    kLong,
    kOtherRange,
    kOtherLength,
    kAbsent,
    kFalseThere,
    kLandAndReset,
    kBadXml,
    kDribble
  };
  static constexpr int kKinds = 17;
  static const char* name_of(Kind kind);

  [[nodiscard]] Kind draw();
  [[nodiscard]] std::uint64_t random(std::uint64_t bound);
  bool answer(const Peer& peer, const Seen& seen);
  // Whether the fault was one for this request; `goes_on`: of the connection.
  bool answer_wrong(Kind kind, const Peer& peer, const Seen& seen, bool& goes_on);
  bool answer_range_wrong(Kind kind, const Peer& peer, const Seen& seen, bool& goes_on);
  [[nodiscard]] std::string right_answer(const Seen& seen);
  [[nodiscard]] std::string get(const std::string& name, const std::string& range);
  [[nodiscard]] std::string list(const std::string& query);
  [[nodiscard]] std::string touch(const std::string& name);
  [[nodiscard]] std::string put(const std::string& name, const std::string& body);

  const unsigned percent_;
  mutable Mutex mutex_;
  Rng rng_ TERRACE_GUARDED_BY(mutex_);
  bool is_kind_ TERRACE_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::string> objects_ TERRACE_GUARDED_BY(mutex_);
  std::map<std::string, std::uint64_t> injected_ TERRACE_GUARDED_BY(mutex_);
  std::unique_ptr<testing::HttpScript> script_;
};

}  // namespace terrace::campaign
