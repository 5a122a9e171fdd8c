#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/cli/commands_internal.h"
#include "terrace/transfer/backend_checks.h"
#include "terrace/transfer/builtin.h"

namespace terrace::cli {
namespace {

// A check has so many times the patience of one transfer; then what hangs is ended.
constexpr std::int64_t kPatiences = 10;

struct Outcome {
  transfer::BackendCheck check;
  bool was_run = true;
  std::string seen;  // Empty = kept.
  [[nodiscard]] bool is_kept() const { return was_run && seen.empty(); }
};

Status check_load(transfer::CheckRig&) { return {}; }
constexpr transfer::BackendCheck kLoad{
    "load", "the library loads, its table is complete, an instance opens and closes", check_load};

std::vector<transfer::BackendCheck> all_checks() {
  std::vector<transfer::BackendCheck> all{kLoad};
  for (const auto checks : {transfer::backend_checks(), transfer::library_checks()}) {
    all.insert(all.end(), checks.begin(), checks.end());
  }
  return all;
}

// What a child wrote until it ended; nothing = the deadline passed first.
std::optional<std::string> read_until_end(int pipe, Nanoseconds deadline, const Clock& clock) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const std::int64_t left = (deadline - clock.now()).value() / 1'000'000;
    if (left <= 0) return std::nullopt;
    pollfd ready{pipe, POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000))) <= 0) continue;
    const ssize_t got = ::read(pipe, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

std::string ended_by(int status) {
  if (WIFSIGNALED(status)) {
    return fmt::format("the process ended by signal {} ({})", WTERMSIG(status),
                       ::strsignal(WTERMSIG(status)));
  }
  return fmt::format("the process ended with {}, and nothing was said", WEXITSTATUS(status));
}

// In a process of its own: foreign code may crash, hang, or end it. Empty = the promise is kept.
std::string run_apart(const transfer::BackendCheck& check, const transfer::CheckPlace& place) {
  constexpr char kKept = '+';
  constexpr char kBroken = '-';
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return Status::from_errno(errno, "pipe2", "").message();
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return Status::from_errno(errno, "fork", "").message();
  if (child == 0) {
    const Status status = transfer::run_backend_check(check, place);
    const std::string said = status.is_ok() ? std::string(1, kKept) : kBroken + status.message();
    const ssize_t written = ::write(writing.get(), said.data(), said.size());
    ::_exit(written == static_cast<ssize_t>(said.size()) ? 0 : 1);
  }
  writing.reset(-1);
  const SystemClock clock;
  const Nanoseconds limit(place.patience.value() * kPatiences);
  const auto said = read_until_end(reading.get(), clock.now() + limit, clock);
  if (!said.has_value()) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!said.has_value()) {
    return fmt::format("it hung for {} s, and was ended", limit.value() / 1'000'000'000);
  }
  if (said->empty()) return ended_by(status);
  return said->front() == kKept ? "" : said->substr(1);
}

std::vector<Outcome> run_all(const transfer::CheckPlace& base, const BackendCheckOptions& options) {
  const auto checks = all_checks();
  std::vector<Outcome> outcomes;
  for (const transfer::BackendCheck& check : checks) {
    Outcome outcome{check, true, {}};
    outcome.was_run = outcomes.empty() || outcomes.front().is_kept();  // Without it, nothing is.
    if (outcome.was_run) {
      options.progress(fmt::format("[{}/{}] {}: {} …\n", outcomes.size() + 1, checks.size(),
                                   check.name, check.promise));
      outcome.seen = run_apart(check, base);
    }
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

std::string as_json(const std::string& library, const std::vector<Outcome>& outcomes,
                    bool is_good) {
  nlohmann::ordered_json json;
  json["library"] = library;
  json["good"] = is_good;
  json["checks"] = nlohmann::ordered_json::array();
  for (const Outcome& outcome : outcomes) {
    const char* state = !outcome.was_run ? "not run" : outcome.is_kept() ? "kept" : "broken";
    json["checks"].push_back({{"name", outcome.check.name},
                              {"promise", outcome.check.promise},
                              {"state", state},
                              {"seen", outcome.seen}});
  }
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string as_text(const std::string& library, const std::vector<Outcome>& outcomes,
                    bool is_good) {
  std::string text = fmt::format("backend {}\n", library);
  std::size_t kept = 0;
  for (const Outcome& outcome : outcomes) {
    kept += outcome.is_kept() ? 1 : 0;
    const char* mark = !outcome.was_run ? "-" : outcome.is_kept() ? "ok" : "FAIL";
    text += fmt::format("  {:<5}{:<16}{}\n", mark, outcome.check.name, outcome.check.promise);
    if (!outcome.seen.empty()) text += fmt::format("       seen: {}\n", outcome.seen);
  }
  text += fmt::format("{} of {} promises kept", kept, outcomes.size());
  text += is_good ? "; disk.backend_library may name it\n"
                  : "; as it is, Terrace would miss with it. include/terrace/backend.h has the "
                    "rules\n";
  return text;
}
}  // namespace

Answer run_backend_check(const BackendCheckOptions& options) {
  std::error_code error;
  const std::string library = std::filesystem::absolute(options.library, error).lexically_normal();
  std::string scratch = options.directory + "/terrace-backend-check-XXXXXX";
  if (::mkdtemp(scratch.data()) == nullptr) {
    const Status status = Status::from_errno(errno, "mkdtemp", options.directory);
    return {kFailed, "",
            fmt::format("terrace backend check: {}; --directory names another one\n",
                        status.message())};
  }
  const Nanoseconds patience(static_cast<std::int64_t>(options.patience_s * 1e9));
  const transfer::CheckPlace place{.make = [&](const transfer::Backend::Options& given)
                                       -> Result<std::unique_ptr<transfer::Backend>> {
                                     transfer::Backend::Options full = given;
                                     full.library = library;
                                     full.patience = patience;
                                     TERRACE_ASSIGN_OR_RETURN(
                                         auto chosen, transfer::make_backend("library", full));
                                     return std::move(chosen.backend);
                                   },
                                   .directory = scratch,
                                   .patience = patience,
                                   .seed = options.seed};
  const std::vector<Outcome> outcomes = run_all(place, options);
  std::filesystem::remove_all(scratch, error);
  const bool is_good = std::ranges::all_of(outcomes, &Outcome::is_kept);
  return {
      is_good ? kDone : kFailed,
      options.is_json ? as_json(library, outcomes, is_good) : as_text(library, outcomes, is_good),
      ""};
}

}  // namespace terrace::cli
