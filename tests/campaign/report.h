// What a campaign counts, and its last line: one JSON object.
// Threading: thread-compatible.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace terrace::campaign {

struct Figures {
  std::uint64_t rounds = 0;  // One seed each.
  std::uint64_t operations = 0;
  std::uint64_t crash_points = 0;
  std::uint64_t wrong_bytes = 0;  // Delivered as right.
  std::uint64_t hangs = 0;        // What did not end once the faults were over.
  std::uint64_t leaks = 0;        // Slots, pins, descriptors, threads.
  std::uint64_t lost_sealed = 0;  // Acknowledged as durable, and not found.
  // By backend and kind.
  std::map<std::pair<std::string, std::string>, std::uint64_t> injected;
  std::vector<std::string> findings;  // In words; the first few.

  void inject(const std::string& backend, const std::string& kind, std::uint64_t count = 1) {
    if (count > 0) injected[{backend, kind}] += count;
  }
  // Counts it, and keeps what it says.
  void find(std::uint64_t& counter, const std::string& what);
  [[nodiscard]] std::uint64_t injected_total() const;
  [[nodiscard]] bool is_clean() const {
    return wrong_bytes == 0 && hangs == 0 && leaks == 0 && lost_sealed == 0 && findings.empty();
  }
};

struct CampaignOptions {
  double minutes = 10;
  std::optional<std::uint64_t> seed;  // Of the first round; then one more each.
  std::uint64_t rounds = 0;           // Beats minutes when not 0.
};

// The whole of a campaign's main(): reads the arguments, runs rounds until the time is over or a
// round found something, prints. Returns the exit status.
int run_campaign(const char* name, int argc, char** argv,
                 const std::function<void(std::uint64_t seed, Figures& figures)>& round);

// `{"campaign":"crash","crash_points":…}`
[[nodiscard]] std::string json_line(const char* name, const Figures& figures, std::uint64_t seed,
                                    double minutes);

// Of this process, as the kernel counts them.
[[nodiscard]] std::size_t open_descriptors();
[[nodiscard]] std::size_t live_threads();
// As many are left as there were: a thread that was joined stays in the kernel's list for a moment.
// Waits: for that, up to eventually()'s limit.
[[nodiscard]] bool are_threads_back_to(std::size_t before);

}  // namespace terrace::campaign
