// Packs on their way into the store: asked for first, as most of what several nodes compute is
// there already, then put whole.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: ObjectTier::Options::most_writes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
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
  [[nodiscard]] bool is_idle() const { return writes_.empty(); }

 private:
  struct Write {
    std::uint64_t token = 0;
    std::vector<SequenceHash> hashes;
    std::vector<PackShards> shards;  // By block, then by group.
    std::string headers;             // Header pages, by block, group and rank.
    std::string footer;
    Nanoseconds deadline{0};
    bool is_put = false;  // Else it is being asked for.
  };
  [[nodiscard]] Status check(std::span<const SequenceHash> hashes,
                             const std::vector<PackShards>& shards) const;
  [[nodiscard]] Status ask(std::uint64_t number, const Write& write);
  [[nodiscard]] Status put(std::uint64_t number, Write& write);
  void encode(Write& write) const;
  void finish(const Write& write, Status status, std::vector<ObjectDone>& done);

  Context& context_;
  Touches& touches_;
  // What payloads are padded with: nothing of the memory behind them leaves this machine.
  std::array<std::byte, wire::kPackAlignment> zeros_{};
  std::uint64_t last_number_ = 0;
  std::unordered_map<std::uint64_t, Write> writes_;
};

}  // namespace terrace::tier::object
