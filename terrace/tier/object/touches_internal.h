// Packs that are in use become young again, so that what is old in a store is what nobody asks for:
// whoever looks a chain up touches those of its packs that have not been touched for long, those
// included that he has in host himself. At most once a day and pack each is asked how old it is.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: kMostWaiting; what does not fit is
// touched at a later look-up.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>

#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Touches {
 public:
  explicit Touches(Context& context) : context_(context) {}

  // The chain's leading `packs` are there, and in use. The tier's lock is not held.
  void note(std::span<const SequenceHash> chain, std::uint64_t packs);
  void advance();
  void take(const transfer::ObjectAnswer& answer, std::uint64_t number);
  [[nodiscard]] bool is_idle() const { return asked_.empty(); }

 private:
  static constexpr std::size_t kMostWaiting = 1024;
  static constexpr std::size_t kMostAsked = 8;
  // In a row: it seems that we may touch nothing here. Every hour one shows whether that holds.
  static constexpr unsigned kMostRefusals = 8;
  struct Asked {
    SequenceHash pack;
    std::uint8_t variant = 0;  // Under which of its names.
    bool is_touch = false;     // Else how old it is.
  };
  [[nodiscard]] bool ask(const Asked& what);
  void end(const Asked& what, const Status& status);
  void refused(const Status& status);
  [[nodiscard]] bool is_paused() const;

  Context& context_;
  std::deque<Asked> waiting_;
  std::unordered_map<std::uint64_t, Asked> asked_;
  std::uint64_t last_number_ = 0;
  unsigned refusals_ = 0;
  Nanoseconds paused_until_{0};
};

}  // namespace terrace::tier::object
