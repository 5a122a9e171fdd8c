#include "campaign/report.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>

#include "terrace/base/clock.h"
#include "terrace/base/rng.h"
#include "terrace/testing/eventually.h"

namespace terrace::campaign {

namespace {
constexpr std::size_t kMostFindings = 20;

// Nothing when an argument makes no sense.
std::optional<CampaignOptions> read_arguments(int argc, char** argv) {
  CampaignOptions options;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) return std::nullopt;
    const std::string value = argv[i + 1];
    std::size_t used = 0;
    try {
      if (name == "--minutes") {
        options.minutes = std::stod(value, &used);
      } else if (name == "--seed") {
        options.seed = std::stoull(value, &used);
      } else if (name == "--rounds") {
        options.rounds = std::stoull(value, &used);
      } else {
        return std::nullopt;
      }
    } catch (const std::exception&) {
      return std::nullopt;
    }
    if (used != value.size()) return std::nullopt;
  }
  return options;
}
}  // namespace

void Figures::find(std::uint64_t& counter, const std::string& what) {
  ++counter;
  if (findings.size() < kMostFindings) findings.push_back(what);
}

std::uint64_t Figures::injected_total() const {
  std::uint64_t sum = 0;
  for (const auto& [key, count] : injected) sum += count;
  return sum;
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

std::size_t live_threads() {
  std::thread([] {}).join();  // A sanitizer's own thread begins with the first one, and stays.
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::ifstream(entry.path() / "comm") >> name;
    // The kernel's own for a ring; they go some time after it.
    if (!name.starts_with("iou-")) ++count;
  }
  return count;
}

bool are_threads_back_to(std::size_t before) {
  return testing::eventually([&] { return live_threads() == before; });
}

std::string json_line(const char* name, const Figures& figures, std::uint64_t seed,
                      double minutes) {
  nlohmann::ordered_json line;
  line["campaign"] = name;
  line["crash_points"] = figures.crash_points;
  line["injected"] = figures.injected_total();
  line["operations"] = figures.operations;
  line["wrong_bytes"] = figures.wrong_bytes;
  line["hangs"] = figures.hangs;
  line["leaks"] = figures.leaks;
  line["lost_sealed"] = figures.lost_sealed;
  line["seed"] = seed;
  line["seeds"] = figures.rounds;
  line["minutes"] = static_cast<double>(static_cast<std::int64_t>(minutes * 100)) / 100;
  for (const auto& [key, count] : figures.injected) {
    line["injected_by"][key.first][key.second] = count;
  }
  return line.dump();
}

int run_campaign(const char* name, int argc, char** argv,
                 const std::function<void(std::uint64_t seed, Figures& figures)>& round) {
  const auto options = read_arguments(argc, argv);
  if (!options) {
    fmt::print(stderr, "{}: --minutes N (10), --seed N (drawn), --rounds N (as many as fit)\n",
               name);
    return 2;
  }
  const SystemClock clock;
  const Nanoseconds begin = clock.now();
  const auto minutes = [&] {
    return static_cast<double>((clock.now() - begin).value()) / 1e9 / 60;
  };
  const std::uint64_t first = options->seed ? *options->seed : random_u64() >> 32U;
  Figures figures;
  double told = 0;
  while (figures.findings.empty() &&
         (options->rounds > 0 ? figures.rounds < options->rounds : minutes() < options->minutes)) {
    const std::uint64_t seed = first + figures.rounds;
    ++figures.rounds;
    round(seed, figures);
    for (const std::string& finding : figures.findings) {
      fmt::print("seed {}: {}\n", seed, finding);
    }
    if (minutes() - told > 1) {
      told = minutes();
      fmt::print(stderr, "{:.0f} min: {} rounds, {} crash points, {} faults\n", told,
                 figures.rounds, figures.crash_points, figures.injected_total());
    }
  }
  fmt::print("{}\n", json_line(name, figures, first, minutes()));
  return figures.is_clean() ? 0 : 1;
}

}  // namespace terrace::campaign
