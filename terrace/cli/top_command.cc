#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>

#include "terrace/cli/commands_internal.h"
#include "terrace/cli/json_in.h"
#include "terrace/cli/live_search.h"
#include "terrace/cli/screen.h"
#include "terrace/cli/top_text.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kOnceRequests = 5;   // Of each engine, where there is no screen to fill.
constexpr std::size_t kMostRequests = 60;  // More than most windows have lines.
constexpr std::size_t kAboveRequests = 14;

// One look at all engines that are meant, with what was seen of each before.
class Look {
 public:
  explicit Look(const TopOptions& options, const Clock& clock) : options_(options), clock_(clock) {}

  // What each engine says now; in `error` what did not work.
  std::vector<TopEngine> take(std::size_t requests, Answer& answer) {
    LiveChoice choice = find_engines(options_.live, clock_);
    if (choice.refusal) {
      answer = *std::move(choice.refusal);
      return {};
    }
    answer = {choice.found.has_failed ? kFailed : kDone, "", choice.found.error};
    const Nanoseconds now = clock_.now();
    std::vector<TopEngine> engines;
    std::map<std::string, Seen> seen;
    for (LiveEngine& one : choice.found.engines) {
      TopEngine engine{.name = one.name, .status = one.status, .before = {}, .ledgers = {}};
      if (const auto last = seen_.find(one.socket); last != seen_.end()) {
        engine.before = last->second.status;
        engine.seconds = static_cast<double>((now - last->second.at).value()) * 1e-9;
      }
      // An older engine has none: the rest is shown all the same.
      auto ledgers =
          ask_engine(one.socket, "GET", fmt::format("/ledgers?most={}", requests), "", clock_);
      if (ledgers.has_value()) engine.ledgers = *std::move(ledgers);
      seen[one.socket] = {.status = std::move(one.status), .at = now};
      engines.push_back(std::move(engine));
    }
    seen_ = std::move(seen);
    return engines;
  }

 private:
  struct Seen {
    std::string status;
    Nanoseconds at{0};
  };
  const TopOptions& options_;
  const Clock& clock_;
  std::map<std::string, Seen> seen_;  // By socket.
};

std::string json_of(const std::vector<TopEngine>& engines) {
  Json all = Json::array();
  for (const TopEngine& engine : engines) {
    Json one = Json::parse(engine.status, nullptr, /*allow_exceptions=*/false);
    const Json ledgers = Json::parse(engine.ledgers, nullptr, /*allow_exceptions=*/false);
    one["ledgers"] = part_of(ledgers, "ledgers", Json::value_t::array);
    all.push_back(std::move(one));
  }
  return all.dump(2, ' ', true, Json::error_handler_t::replace) + '\n';
}

Answer once(const TopOptions& options, const Clock& clock) {
  Look look(options, clock);
  Answer answer;
  const auto engines = look.take(options.live.is_json ? kMostRequests : kOnceRequests, answer);
  if (engines.empty()) return answer;
  answer.out = options.live.is_json ? json_of(engines)
                                    : top_text(engines, kOnceRequests, clock.wall_seconds());
  return answer;
}

Answer live(const TopOptions& options, const Clock& clock) {
  Look look(options, clock);
  Answer answer;
  auto engines = look.take(kMostRequests, answer);
  if (engines.empty()) return answer;
  int signal = 0;
  {
    auto screen = Screen::open();
    if (!screen.has_value()) {
      return {kFailed, "",
              fmt::format("terrace top: {}: --once shows it once\n", screen.error().message())};
    }
    const auto every = Nanoseconds(static_cast<std::int64_t>(options.every_s * 1e9));
    for (;;) {
      const std::size_t rows = (*screen)->rows();
      std::string text =
          fmt::format("terrace top: every {:g} s; q or ^C ends it\n\n", options.every_s);
      // Several engines share the window; what is above the requests takes some ten lines.
      const std::size_t room = rows / std::max<std::size_t>(engines.size(), 1);
      text += top_text(engines, room > kAboveRequests ? room - kAboveRequests : 0,
                       clock.wall_seconds());
      if (engines.empty()) text += answer.error;
      (*screen)->show(cropped(text, rows, (*screen)->columns()));
      if (!(*screen)->wait_for(every, clock)) break;
      engines = look.take(kMostRequests, answer);
    }
    signal = (*screen)->ended_by();
  }
  if (signal != 0) (void)::raise(signal);
  return {};
}

}  // namespace

Answer run_top(const TopOptions& options) {
  const SystemClock clock;
  const bool is_live = !options.is_once && !options.live.is_json && Screen::is_possible();
  return is_live ? live(options, clock) : once(options, clock);
}

}  // namespace terrace::cli
