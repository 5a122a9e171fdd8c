// Checksums of the payloads of frames, one behind the other, as they arrive.
// Threading: as transfer::Arrivals; sum() after the read's answer.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "terrace/block/checksum.h"
#include "terrace/tier/shard_memory.h"
#include "terrace/transfer/arrivals.h"
#include "terrace/wire/frame.h"

namespace terrace::tier {

class FrameSums final : public transfer::Arrivals {
 public:
  void clear() {
    frames_.clear();
    restart();
  }
  // The next frame: a header page, then `shard`'s payload with its padding.
  void add(const ShardMemory& shard) {
    const std::uint64_t begin = frames_.empty() ? 0 : frames_.back().end;
    frames_.push_back({.payload = shard.payload,
                       .begin = begin + wire::kFrameHeaderBytes,
                       .payload_end = begin + wire::kFrameHeaderBytes + shard.payload_bytes,
                       .end = begin + wire::kFrameHeaderBytes + shard.padded_bytes,
                       .sum = {}});
  }

  void on_bytes(std::uint64_t from, std::uint64_t to) override {
    if (from == 0) restart();
    if (from != seen_) return;  // Not what it promises: nothing more is believed.
    seen_ = to;
    while (current_ < frames_.size()) {
      Frame& frame = frames_[current_];
      const std::uint64_t first = std::max(from, frame.begin);
      const std::uint64_t last = std::min(to, frame.payload_end);
      if (first < last) copier_.add(frame.payload + (first - frame.begin), last - first);
      if (to < frame.payload_end) return;
      if (!frame.sum) frame.sum = copier_.finish();
      if (to < frame.end) return;
      ++current_;
    }
  }

  // Of frame `number`, if all of its payload was shown.
  [[nodiscard]] std::optional<Checksum> sum(std::size_t number) const {
    return number < frames_.size() ? frames_[number].sum : std::nullopt;
  }

 private:
  struct Frame {
    const std::byte* payload;
    std::uint64_t begin;  // Of the payload, in what was asked for.
    std::uint64_t payload_end;
    std::uint64_t end;
    std::optional<Checksum> sum;
  };
  void restart() {
    copier_ = {};
    current_ = 0;
    seen_ = 0;
    for (Frame& frame : frames_) frame.sum.reset();
  }

  std::vector<Frame> frames_;
  ShardCopier copier_;
  std::size_t current_ = 0;
  std::uint64_t seen_ = 0;
};

}  // namespace terrace::tier
