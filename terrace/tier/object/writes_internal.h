// Packs on their way into the store: asked for first, as most of what several nodes compute is
// there already, then put whole.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: ObjectTier::Options::most_writes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "terrace/tier/object/context_internal.h"
#include "terrace/tier/object/touches_internal.h"

namespace terrace::tier::object {

class Writes {
 public:
  Writes(Context& context, Touches& touches) : context_(context), touches_(touches) {}

  [[nodiscard]] Status begin(std::uint64_t token, std::span<const SequenceHash> hashes,
                             std::vector<PackShards> shards);
  void take(const transfer::ObjectAnswer& answer, std::uint64_t number,
            std::vector<ObjectDone>& done);
  // Begins what waits for a buffer, or ends it.
  void advance(std::vector<ObjectDone>& done);
  // Cipher work on one of its frames has ended.
  void take_sealed(std::uint64_t number, std::vector<ObjectDone>& done);
  [[nodiscard]] bool is_idle() const { return writes_.empty(); }

  // Whether what is under way for it is the put; else it is being asked for.
  [[nodiscard]] bool is_put(std::uint64_t number) const {
    const auto found = writes_.find(number);
    return found != writes_.end() && found->second.is_put;
  }

 private:
  struct Write {
    std::uint64_t token = 0;
    std::vector<SequenceHash> hashes;
    std::vector<PackShards> shards;  // By block, then by group.
    std::string headers;             // Header pages, by block, group and rank.
    std::string footer;
    Nanoseconds deadline{0};
    bool is_put = false;  // Else it is being asked for.
    // Where it is encrypted: the payloads, padded, and by block, group and rank their headers.
    std::byte* buffer = nullptr;
    std::vector<wire::FrameHeader> sealed;
    std::vector<Status> seals;
    std::size_t pending = 0;
  };
  [[nodiscard]] Status check(std::span<const SequenceHash> hashes,
                             const std::vector<PackShards>& shards) const;
  [[nodiscard]] Status ask(std::uint64_t number, const Write& write);
  [[nodiscard]] Status put(std::uint64_t number, Write& write);
  void encode(Write& write) const;
  // False when there is no buffer for it now.
  [[nodiscard]] bool seal(std::uint64_t number, Write& write);
  // Why nothing is put any more; ok = it is.
  [[nodiscard]] Status refusal() const;
  void end(std::uint64_t number, Status status, std::vector<ObjectDone>& done);
  void finish(const Write& write, Status status, std::vector<ObjectDone>& done);

  Context& context_;
  Touches& touches_;
  // What payloads are padded with: nothing of the memory behind them leaves this machine.
  std::array<std::byte, wire::kPackAlignment> zeros_{};
  std::uint64_t last_number_ = 0;
  std::unordered_map<std::uint64_t, Write> writes_;
  std::deque<std::uint64_t> for_buffer_;
};

}  // namespace terrace::tier::object
