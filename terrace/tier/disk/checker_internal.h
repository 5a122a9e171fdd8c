// Looks at a volume that was shut, before its blocks count again: its path leads to the files that
// are open, extents.meta and slots.meta begin as they did, and a sample of the frames is what their
// records say. What came back is not trusted because it answers: an older copy of the same medium
// answers, too. A frame that cannot be read is dropped as a damaged one is, while others can be.
// One for each volume: one that hangs in a check keeps none of the others from theirs.
// Threading: the I/O thread's.  Waits: never.  Memory: one frame, from the start.  Bounds: one read
// at a time.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

class Writer;

class Checker {
 public:
  Checker(Context& context, Writer& writer, std::uint32_t volume);
  // Begins what is due, or goes on.
  void advance();
  void finish(const Status& status);
  void stop() { is_stopped_ = true; }
  // Once after a volume came back with a damaged block: all of it should be read.
  [[nodiscard]] bool take_doubt() { return std::exchange(has_doubt_, false); }

 private:
  enum class Step : std::uint8_t { kIdle, kPlace, kExtents, kMeta, kFrames };
  static constexpr std::uint32_t kSamples = 32;
  // Frames in a row that cannot be read: then it is the device, not a bad place of it.
  static constexpr std::size_t kMostSuspects = 3;
  struct Suspect {
    std::size_t group = 0;
    Slots::Sight block;
    Status why;
  };
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  // Its path is looked at; then what is there is read.
  void begin();
  void read_start();
  void read(int file, std::uint64_t offset, std::size_t bytes);
  void read_frame();
  [[nodiscard]] bool find_sample();
  [[nodiscard]] bool is_suspect() const;
  void judge_frame();
  void suspect(const Status& why);
  void convict();
  void drop(std::size_t group, const Slots::Sight& block, std::string_view what, const Status& why);
  void end();
  void give_up(const Status& why);
  void distrust(const std::string& why);

  Context& context_;
  Writer& writer_;
  const std::uint32_t volume_;
  const std::size_t memory_bytes_;
  const std::unique_ptr<std::byte, Free> memory_;
  bool is_stopped_ = false;
  bool is_flying_ = false;
  bool has_doubt_ = false;
  Step step_ = Step::kIdle;
  std::uint64_t look_ = 0;  // Of Looker, for kPlace.
  std::uint32_t sample_ = 0;
  std::uint32_t good_ = 0;
  std::uint32_t bad_ = 0;          // Read, and not what it was.
  std::uint32_t unread_ = 0;       // Could not be read, while others could.
  std::vector<Suspect> suspects_;  // Could not be read, the last ones in a row.
  std::size_t group_ = 0;
  std::uint16_t rank_ = 0;
  std::optional<Slots::Sight> block_;
};

}  // namespace terrace::tier::disk
