// disk.write_budget and disk.dwpd of one owner: what a day may have, and the account of it that
// outlives the process, in writes.meta of the owner's first directory. Threading: the I/O thread's;
// facts() is thread-safe.  Waits: file I/O when constructed, by the opening thread.  Bounds: one
// account on its way. Source: docs/formats/disk.md, write_budget_internal.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/disk/write_budget_internal.h"

namespace terrace::tier::disk {

class BudgetKeeper {
 public:
  explicit BudgetKeeper(Context& context);

  // Whether a block of so many bytes may go to the medium. The first one always may: a tier that
  // cannot write its canary would serve nothing.
  [[nodiscard]] bool may_write(std::uint64_t bytes) {
    return !has_written_ || budget_.may_take(bytes, context_.clock.now());
  }
  void charge(std::uint64_t bytes) { budget_.take(bytes, context_.clock.now()); }
  void charge_block(std::uint64_t bytes) {
    has_written_ = true;
    charge(bytes);
  }
  // Starts what became due.
  void advance();
  void finish(Purpose purpose, const Status& status);
  // Makes what is left durable, for the next start.
  void stop();
  [[nodiscard]] bool is_saving() const { return is_saving_; }

  [[nodiscard]] int file() const { return file_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }
  // Empty = none. Thread-safe: it does not change.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  struct Facts {
    std::uint64_t bytes_per_day = 0;  // 0 = no bound.
    std::int64_t left = 0;            // Now; below 0 = debt.
  };
  [[nodiscard]] Facts facts() const { return {budget_.bytes_per_day(), left_.value()}; }

 private:
  [[nodiscard]] WriteBudget open();
  void push(const WriteAccount& account);

  Context& context_;
  std::string path_;
  UniqueFd file_;
  std::string problem_;
  std::vector<std::byte> page_;
  WriteBudget budget_;  // After the members that open() fills.
  bool has_written_ = false;
  bool is_saving_ = false;
  bool is_last_due_ = false;
  Gauge left_;
};

// What flows to the disk and from it, for monitoring.
void visit_flow(const Meters& meters, const transfer::Backend::Counters& io,
                const BudgetKeeper& budget, const transfer::Queue& queue, MetricVisitor& visitor);

}  // namespace terrace::tier::disk
