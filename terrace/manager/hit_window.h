// Hit rates of host, disk and object over the last requests that ended, by KVBM's formula: blocks
// delivered by the tier over blocks asked for beyond the engine's own hit. One denominator, so the
// rates add up. Threading: thread-compatible.  Waits: never.  Memory: 32 bytes per request of the
// window, at create.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/strong.h"
#include "terrace/manager/ledger.h"

namespace terrace::manager {

class HitWindow {
 public:
  struct Totals {
    std::uint64_t asked = 0;  // Blocks.
    std::uint64_t host = 0;
    std::uint64_t disk = 0;
    std::uint64_t object = 0;
    [[nodiscard]] double host_rate() const { return rate(host); }
    [[nodiscard]] double disk_rate() const { return rate(disk); }
    [[nodiscard]] double object_rate() const { return rate(object); }

   private:
    [[nodiscard]] double rate(std::uint64_t part) const {
      return asked == 0 ? 0 : static_cast<double>(part) / static_cast<double>(asked);
    }
  };

  // `requests` = 0 keeps nothing.
  HitWindow(std::uint32_t requests, Tokens block_tokens);
  // A request that looked something up has ended; the oldest one leaves a full window.
  void add(const Ledger& ledger);
  [[nodiscard]] const Totals& totals() const { return totals_; }
  // Requests added since the start.
  [[nodiscard]] std::uint64_t ended() const { return ended_; }
  // `KVBM [id] Cache Hit Rates - Host: 0.0% (0/1), Disk: 0.0% (0/1)`: word for word KVBM's line,
  // which its users' log filters look for.
  [[nodiscard]] std::string log_line(std::string_view engine_id) const;

 private:
  struct Entry {
    std::uint64_t asked = 0;
    std::uint64_t host = 0;
    std::uint64_t disk = 0;
    std::uint64_t object = 0;
  };
  const std::uint64_t block_tokens_;
  std::vector<Entry> entries_;  // A ring; unused entries are zero.
  std::size_t next_ = 0;
  Totals totals_;
  std::uint64_t ended_ = 0;
};

}  // namespace terrace::manager
