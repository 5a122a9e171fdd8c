// The owner's end of the rendezvous: listens on a Unix socket in a 0700 directory, checks peer
// credentials and layout, hands over the lane's descriptors (SCM_RIGHTS), notices the death of each
// attached process (pidfd). One attachment per rank; a new one of the same rank replaces a dead one
// only. Peers that are slow, silent or hostile are dropped at a deadline and hold up nobody.
// Threading: thread-safe; one thread of its own, `terrace-attach`. A forked child's destructor does
// nothing.  Waits: never in calls; the destructor joins its thread.
// Source: docs/formats/attach.md.
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

// `<directory>/<24 hex digits of the engine id's digest>.sock`, never longer than 107 bytes.
// Errors: kInvalid names attach.directory when it is too long or empty.
[[nodiscard]] Result<std::string> socket_path(const std::string& directory,
                                              const std::string& engine_id);

// kAttached: the lane is mapped, orders may be sent. kPopulated: and its pages are present.
// kDied: the process is gone, or it closed its attachment: no late write of that epoch can land.
// Unless problem() says that our thread is gone: then a copy that a living rank has begun may.
// kRefused: somebody was turned away, or failed to map; no epoch, and a rank only if it was a
// worker of ours. The log says who and why.
enum class AttachChange : std::uint8_t { kAttached, kPopulated, kDied, kRefused };

struct AttachEvent {
  AttachChange change = AttachChange::kRefused;
  RankId rank;
  Epoch epoch;
  std::string detail;        // For kRefused: which field differs. For kDied: how it was noticed.
  std::int64_t process = 0;  // Of the rank; 0 = none, or in a namespace that we cannot see.
};

class AttachServer {
 public:
  struct Options {
    std::string directory;  // Made with mode 0700; refused when it belongs to somebody else.
    std::string engine_id;
    std::uint64_t owner = 0;  // Instance number, random.
    Layout layout;
    memory::SegmentGeometry geometry;
    std::vector<const memory::Lane*> lanes;    // One per rank; outlive the server.
    Nanoseconds handshake_limit = seconds(5);  // From connecting to mapped.
  };
  // Replaces the socket of a dead owner. Errors: kRefused = the directory is somebody else's, a
  // link, or open to others, or a live owner has this engine id; kInvalid names attach.directory;
  // kIo.
  static Result<std::unique_ptr<AttachServer>> start(Options options, const Clock& clock,
                                                     LogSink& log);
  ~AttachServer();  // Closes and removes the socket, joins its thread.

  // Never loses a kDied; refusals beyond 64 waiting are only logged.
  [[nodiscard]] std::vector<AttachEvent> take_events();
  [[nodiscard]] bool all_attached() const;
  [[nodiscard]] Epoch epoch_of(RankId rank) const;  // 0 = not attached.
  [[nodiscard]] int event_fd() const;               // Readable while take_events() has some.
  // Empty while its thread lives. Once it is not, nobody attaches any more, and kDied has been told
  // of all who were.
  [[nodiscard]] std::string problem() const;

 private:
  struct State;
  explicit AttachServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::attach
