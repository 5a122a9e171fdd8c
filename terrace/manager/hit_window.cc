#include "terrace/manager/hit_window.h"

#include <fmt/format.h>

#include <algorithm>

namespace terrace::manager {

HitWindow::HitWindow(std::uint32_t requests, Tokens block_tokens)
    : block_tokens_(std::max<std::uint64_t>(block_tokens.value(), 1)), entries_(requests) {}

void HitWindow::add(const Ledger& ledger) {
  if (entries_.empty()) return;
  const std::uint64_t prompt = ledger.prompt.value() / block_tokens_;
  const std::uint64_t local = ledger.local.value() / block_tokens_;
  const auto blocks_of = [&](Tier tier) {
    return ledger.hit.at(static_cast<std::size_t>(tier)).value() / block_tokens_;
  };
  Entry entry;
  entry.host = blocks_of(Tier::kHost);
  entry.disk = blocks_of(Tier::kDisk);
  entry.object = blocks_of(Tier::kObject);
  // Never less than what was delivered: generated blocks of an earlier turn count as asked for too.
  entry.asked = std::max(prompt - std::min(local, prompt), entry.host + entry.disk + entry.object);
  Entry& oldest = entries_[next_];
  totals_.asked += entry.asked - oldest.asked;
  totals_.host += entry.host - oldest.host;
  totals_.disk += entry.disk - oldest.disk;
  totals_.object += entry.object - oldest.object;
  oldest = entry;
  ++ended_;
  next_ = (next_ + 1) % entries_.size();
}

std::string HitWindow::log_line(std::string_view engine_id) const {
  return fmt::format("KVBM [{}] Cache Hit Rates - Host: {:.1f}% ({}/{}), Disk: {:.1f}% ({}/{})",
                     engine_id, totals_.host_rate() * 100, totals_.host, totals_.asked,
                     totals_.disk_rate() * 100, totals_.disk, totals_.asked);
}

}  // namespace terrace::manager
