// Which hits are checked: such a request is answered 0 and computes, and its blocks are compared
// with the stored ones, which are held until then. Once two differ, nothing is loaded or stored any
// more, by later owners of the namespace neither. Threading: thread-compatible; the manager's lock
// guards it.  Waits: never. Bounds: an eighth of the host slots is held for it, and as many at most
// are filled to compare. Source: docs/adr/0036-a-share-of-hits-is-checked.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/checksum.h"
#include "terrace/manager/context_internal.h"
#include "terrace/manager/difference_internal.h"
#include "terrace/manager/request_internal.h"
#include "terrace/manager/tally_internal.h"

namespace terrace::manager {

// Two versions of a block in one group, both in host, that the I/O thread is to compare.
struct CompareJob {
  std::uint64_t token = 0;
  GroupId group{};
  SequenceHash hash{};
  SlotIndex stored{};
  SlotIndex computed{};
  std::vector<Checksum> stored_checksums{};  // [rank]
  std::vector<Checksum> computed_checksums{};
};

struct Compared {
  enum class Verdict : std::uint8_t {
    kWithin,   // The noise floor.
    kBeyond,   // It.
    kDamaged,  // Not what was copied here: its checksum would have made it a miss.
  };
  std::uint64_t token = 0;
  Verdict verdict = Verdict::kWithin;
  RankId rank{};            // Where it is beyond the floor.
  Difference difference{};  // Of that rank, else the largest.
};

class Shadows {
 public:
  // `seed`: which of the hits are checked follows from it alone.
  Shadows(Context& context, std::uint64_t seed);

  // The request's next hit is to be checked. Decided once for each request, at its first hit.
  [[nodiscard]] bool wants(Request& request);
  // Takes over what its look-up holds of the `blocks` that it found; the request then computes
  // them. False if it is not to be checked, or nothing more may be held.
  [[nodiscard]] bool claim(Request& request, std::uint64_t blocks, Nanoseconds now);
  // A request that has not begun to compute in time is a hit again.
  void expire(Request& request, Nanoseconds now);
  // Nothing of it is compared any more, beside what is ordered.
  void release(Request& request);

  [[nodiscard]] bool is_on() const {
    return context_.options.shadow.share > 0 && context_.options.shadow.element.has_value();
  }
  [[nodiscard]] bool is_quarantined() const { return !reason_.empty(); }
  [[nodiscard]] const std::string& reason() const { return reason_; }
  void quarantine(std::string reason) { reason_ = std::move(reason); }
  void add_to_reason(const std::string& more) { reason_ += "; " + more; }
  // The file that outlives this process; empty = none does.
  [[nodiscard]] const std::vector<std::string>& marks() const { return marks_; }
  void set_marks(std::vector<std::string> paths) { marks_ = std::move(paths); }

  // One more block is being compared, as long as the tally lives.
  [[nodiscard]] Tally count_one() { return {under_way_, context_.counters.shadow_skipped}; }
  // A key that no look-up asks for, each time another.
  [[nodiscard]] BlockKey next_key(GroupId group);
  [[nodiscard]] std::uint64_t held() const { return held_; }
  [[nodiscard]] std::uint64_t under_way() const { return under_way_; }

 private:
  [[nodiscard]] std::uint64_t room() const;
  [[nodiscard]] bool draw();
  [[nodiscard]] std::uint64_t next_gap();

  Context& context_;
  Rng rng_;
  std::uint64_t left_ = 0;  // Hits until the next one that is checked.
  std::uint64_t held_ = 0;
  std::uint64_t under_way_ = 0;
  std::uint64_t last_key_ = 0;
  std::string reason_;
  std::vector<std::string> marks_;
};

}  // namespace terrace::manager
