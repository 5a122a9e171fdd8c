// Look-ups on their way: how much of a chain lies in the store.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: ObjectTier::Options::most_probes.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "terrace/tier/object/context_internal.h"
#include "terrace/tier/object/search_internal.h"
#include "terrace/tier/object/touches_internal.h"

namespace terrace::tier::object {

class Probes {
 public:
  Probes(Context& context, Touches& touches) : context_(context), touches_(touches) {}

  [[nodiscard]] Status begin(std::uint64_t token, std::span<const SequenceHash> chain,
                             Nanoseconds deadline);
  // Asks for what may be asked now, and brings to an end what is over.
  void advance(std::vector<ObjectDone>& done);
  void take(const transfer::ObjectAnswer& answer, std::uint64_t number);
  [[nodiscard]] bool is_idle() const { return probes_.empty(); }

 private:
  struct Asking {
    std::uint64_t pack = 0;    // Number within the chain.
    std::uint8_t variant = 0;  // Under which of its names.
  };
  struct Probe {
    std::uint64_t token = 0;
    std::vector<SequenceHash> chain;  // Whole packs.
    Nanoseconds deadline{0};
    Search search;
    std::vector<Asking> unasked;                               // Of this round, the next one last.
    std::unordered_map<std::uint64_t, std::uint8_t> variants;  // Of packs that are there.
    std::size_t open = 0;                                      // Asked for, and not answered.
    Status status;
  };
  struct Question {
    std::uint64_t probe = 0;
    Asking asking;
  };
  [[nodiscard]] const SequenceHash& last_of(const Probe& probe, std::uint64_t pack) const;
  // False when the queue takes no more for now.
  bool ask(std::uint64_t number, Probe& probe);
  [[nodiscard]] bool is_known_absent(const SequenceHash& pack) const;
  [[nodiscard]] bool is_known_damaged(const PackName& name) const;
  // It is not there under this name: under its next one, or not at all.
  void go_on(Probe& probe, const Asking& asked);
  void settle(const Probe& probe, std::vector<ObjectDone>& done);

  Context& context_;
  Touches& touches_;
  std::uint64_t last_number_ = 0;
  std::uint64_t last_question_ = 0;
  std::unordered_map<std::uint64_t, Probe> probes_;        // By number.
  std::unordered_map<std::uint64_t, Question> questions_;  // By the store's token.
};

}  // namespace terrace::tier::object
