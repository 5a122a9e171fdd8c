// The owner's end of the rendezvous: listens on a Unix socket in a 0700 directory, checks peer
// credentials and layout, hands over the lane's descriptors (SCM_RIGHTS), notices the death of each
// attached process (pidfd). One attachment per rank; a new one of the same rank replaces a dead one only.
// Threading: thread-safe; one thread of its own.  Waits: never in calls.
// Source: design.md section 3, docs/formats/attach.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/status.h"
#include "terrace/block/layout.h"
#include "terrace/memory/host_segment.h"

namespace terrace::attach {

// `<directory>/<24 hex digits of SHA-256(engine_id)>.sock`, never longer than 107 bytes.
// Errors: kInvalid names attach.directory when it is too long.
[[nodiscard]] Result<std::string> socket_path(const std::string& directory,
                                              const std::string& engine_id);

enum class AttachChange : std::uint8_t { kAttached, kPopulated, kDied, kRefused };

struct AttachEvent {
  AttachChange change;
  RankId rank;
  Epoch epoch;
  std::string detail;  // For kRefused: which field differs.
};

class AttachServer {
 public:
  struct Options {
    std::string directory;   // Made with mode 0700; refused when it belongs to somebody else.
    std::string engine_id;
    std::uint64_t owner = 0; // Instance number, random.
    Layout layout;
    memory::SegmentGeometry geometry;
    std::vector<const memory::Lane*> lanes;  // One per rank; outlive the server.
  };
  static Result<std::unique_ptr<AttachServer>> start(Options options, const Clock& clock, LogSink& log);
  ~AttachServer();  // Closes the socket, joins its thread.

  [[nodiscard]] std::vector<AttachEvent> take_events();
  [[nodiscard]] bool all_attached() const;
  [[nodiscard]] Epoch epoch_of(RankId rank) const;  // 0 = not attached.
  [[nodiscard]] int event_fd() const;               // Readable while take_events() has some.

 private:
  struct State;
  explicit AttachServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::attach
