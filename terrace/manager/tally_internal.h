// A comparison under way: counted while it lives, and as not made unless somebody says otherwise,
// wherever it ends. So none is lost that is dropped with its request, its step or its rank.
// Threading: thread-compatible; the manager's lock guards it and the number.  Waits: never.
#pragma once

#include <cstdint>
#include <utility>

#include "terrace/base/metric.h"

namespace terrace::manager {

class Tally {
 public:
  Tally() = default;
  // Both outlive it.
  Tally(std::uint64_t& under_way, Counter& skipped) : under_way_(&under_way), skipped_(&skipped) {
    ++under_way;
  }
  Tally(Tally&& other) noexcept
      : under_way_(std::exchange(other.under_way_, nullptr)),
        skipped_(std::exchange(other.skipped_, nullptr)) {}
  Tally& operator=(Tally&& other) noexcept {
    if (this == &other) return *this;
    end();
    under_way_ = std::exchange(other.under_way_, nullptr);
    skipped_ = std::exchange(other.skipped_, nullptr);
    return *this;
  }
  ~Tally() { end(); }

  // The comparison was made, with a result that is counted.
  void settle(Counter& result) {
    result.add();
    skipped_ = nullptr;
  }

 private:
  void end() {
    if (under_way_ != nullptr) --*under_way_;
    if (skipped_ != nullptr) skipped_->add();
  }

  std::uint64_t* under_way_ = nullptr;
  Counter* skipped_ = nullptr;
};

}  // namespace terrace::manager
