// A worker's end of the rendezvous: a thread of ours waits for the owner's socket, attaches, maps
// and populates the rank's lane, and attaches anew when the owner is replaced. Threading:
// thread-safe; one thread of its own, `terrace-worker`. A forked child's destructor does nothing.
// Waits: never in calls but close(); the destructor joins its thread. Source:
// docs/formats/attach.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/status.h"
#include "terrace/block/layout.h"
#include "terrace/memory/host_segment.h"

namespace terrace::attach {

// What a successful attachment gives. Immutable; kept alive by whoever uses it in a step.
struct Attachment {
  std::uint64_t owner = 0;
  Epoch epoch;
  memory::SegmentGeometry geometry;
  memory::Lane lane;
};

class AttachClient {
 public:
  struct Options {
    std::string directory;
    std::string engine_id;
    RankId rank;
    Layout layout;
    Nanoseconds timeout =
        seconds(120);  // attach.timeout; afterwards problem() says so, tries go on.
    bool is_populating = true;
    Nanoseconds handshake_limit = seconds(5);  // For an owner's answer; then the next try.
    // Replaces Lane::populate, for faults in tests; empty = as is.
    std::function<Status(const memory::Lane&, std::uint32_t extent)> populate;
  };
  // Errors: kInvalid = rank, layout or attach.directory; kExhausted = no thread.
  static Result<std::unique_ptr<AttachClient>> start(Options options, const Clock& clock,
                                                     LogSink& log);
  // Ends the attachment: only after the last copy that uses it. Waits for the thread.
  ~AttachClient();
  // The same up to `deadline` of the clock. False: the thread hangs in the system, and goes on one
  // day with all that was given to start(); call again, or leave this object alone.
  [[nodiscard]] bool close(Nanoseconds deadline);

  // Null until attached, and again once the owner has gone. Cheap.
  [[nodiscard]] std::shared_ptr<const Attachment> attachment() const;
  [[nodiscard]] std::string problem() const;  // Why not attached; empty when fine.

 private:
  struct State;
  explicit AttachClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::attach
