// disk.write_budget and disk.dwpd of one owner: what a day may have, and the account of it that
// outlives the process, in writes.meta of each of the owner's directories. It is kept in all that
// are well, and durable with the first of them: one that fails or hangs stops no writes. Threading:
// the I/O thread's; facts() and problem() are thread-safe.  Waits: file I/O when constructed, by
// the opening thread.  Bounds: one account on its way to each directory. Source:
// docs/formats/disk.md, write_budget_internal.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/mutex.h"
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
  // It would go, were there an account of it.
  [[nodiscard]] bool is_unkept(std::uint64_t bytes) {
    return has_failed_ && budget_.level(context_.clock.now()) >= static_cast<std::int64_t>(bytes);
  }
  // Starts what became due.
  void advance();
  void finish(Purpose purpose, std::uint32_t volume, const Status& status);
  // Makes what is left durable, for the next start.
  void stop();
  // In a directory that is well.
  [[nodiscard]] bool is_saving() const;

  void name_files(transfer::Backend& backend) const;
  // That no account can be written, and so nothing else is; empty = none. Thread-safe.
  [[nodiscard]] std::string problem() const;
  struct Facts {
    std::uint64_t bytes_per_day = 0;  // 0 = no bound.
    std::int64_t left = 0;            // Now; below 0 = debt.
  };
  [[nodiscard]] Facts facts() const { return {budget_.bytes_per_day(), left_.value()}; }

 private:
  struct Copy {  // Of one volume.
    std::string path;
    UniqueFd file;
    std::vector<std::byte> page;  // On its way.
    std::uint64_t number = 0;     // Of the account in it.
    bool is_flying = false;
  };
  [[nodiscard]] WriteBudget open();
  [[nodiscard]] Status open_copy(std::uint32_t volume, WriteAccounts& found);
  void choose_set(const WriteAccounts& found);
  [[nodiscard]] Status write_first(const WriteAccount& account);
  [[nodiscard]] bool may_push(std::uint32_t volume) const;
  void push(const WriteAccount& account);
  // No directory that is well has the account under way any more.
  [[nodiscard]] bool is_given_up() const;
  void end_account(const Status& status);
  void tell(const Status& status);

  Context& context_;
  std::vector<Copy> copies_;  // [volume]
  std::uint64_t set_ = 0;
  std::uint32_t set_copies_ = 0;
  mutable Mutex mutex_;
  std::string problem_ TERRACE_GUARDED_BY(mutex_);
  bool has_failed_ = false;  // The last account, everywhere.
  Gauge left_;
  WriteBudget budget_;  // After the members that open() fills.
  bool has_written_ = false;
  std::uint64_t number_ = 0;  // Of the last account.
  bool is_awaited_ = false;   // It is durable nowhere yet.
  bool is_last_due_ = false;
};

// What flows to the disk and from it, for monitoring.
void visit_flow(const Meters& meters, const transfer::Backend::Counters& io,
                const BudgetKeeper& budget, const transfer::Queue& queue, MetricVisitor& visitor);

}  // namespace terrace::tier::disk
