// What lies on a medium after a crash: the changes of a recorder, those that a tier makes by itself
// while it opens among them, done again in another place.
// Threading: as Recorder.  Waits: for file I/O.
#pragma once

#include <string>

#include "terrace/testing/file_calls.h"
#include "terrace/transfer/backends/fault/recorder.h"

namespace terrace::campaign {

// While it lives the recorder is told of this thread's own changes below `below`.
class OpeningWatch final : public testing::FileWatch {
 public:
  OpeningWatch(transfer::Recorder& recorder, std::string below)
      : recorder_(recorder), below_(std::move(below)) {}
  void on_change(const testing::FileChange& change) override;

 private:
  transfer::Recorder& recorder_;
  const std::string below_;
};

// Does the one change to `path`, which is where the recorded one lies now. What has no name there,
// for that has not landed, is left out. False if it cannot be done.
[[nodiscard]] bool land(const transfer::Recorder::Landed& landed, const std::string& path,
                        const std::string& source);

}  // namespace terrace::campaign
