// Looks at a volume that was shut, before its blocks count again: its path leads to the files that
// are open, extents.meta and slots.meta begin as they did, and a sample of the frames is what their
// records say. What came back is not trusted because it answers: an older copy of the same medium
// answers, too.
// One for each volume: one that hangs in a check keeps none of the others from theirs.
// Threading: the I/O thread's.  Waits: never.  Memory: one frame, from the start.  Bounds: one read
// at a time.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>

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
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  // Its path is looked at; then what is there is read.
  void begin();
  void read_start();
  void read(int file, std::uint64_t offset, std::size_t bytes);
  void read_frame();
  [[nodiscard]] bool find_sample();
  void judge_frame();
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
  std::uint32_t bad_ = 0;
  std::size_t group_ = 0;
  std::uint16_t rank_ = 0;
  std::optional<Slots::Sight> block_;
};

}  // namespace terrace::tier::disk
