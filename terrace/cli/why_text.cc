#include "terrace/cli/why_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "terrace/cli/json_in.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kColumns = 79;
constexpr std::size_t kIdColumns = 32;

constexpr std::pair<std::string_view, ReasonWords> kWords[] = {
    {"never_stored",
     {"no tier is known to have had the block that follows: nobody computed this beginning of a "
      "prompt before, or it was stored only after this request asked, or it went longer ago than "
      "is remembered (a restart and a reset forget)",
      "nothing, if the prompt is new. If it should have been known, look for what changes near its "
      "beginning (a date, an id, the order of tools), and for another cache_salt or adapter"}},
    {"evicted",
     {"the block was stored, and the last tier that had it gave it up to make room",
      "give the tiers more room (host.size, disk.size): `terrace advise` says what sizes would "
      "hold "
      "it"}},
    {"other_namespace",
     {"the block lies on disk under another fingerprint: it was stored by an engine with another "
      "model, dtype, block size, tenant or version, so its bytes do not fit",
      "`terrace inspect` with the directories of disk.paths names the field that differs: start "
      "the "
      "engine as the one that stored it, or let the blocks be computed anew"}},
    {"corrupt",
     {"the bytes of the block did not verify; it was dropped, and computed anew",
      "the log says where (`corrupt`, `scrub=bad`). `terrace scrub --wait` reads all that lies on "
      "the disks; if there is more of it, look at the device, or at the memory of the machine"}},
    {"late",
     {"the block was found, but was not in host memory in time: a tier was slow, hung, or still "
      "opening",
      "`terrace status` shows queues, speeds and what is wrong with a tier. lookup.deadline bounds "
      "the wait of a request, attach.lookup_wait that for the start"}},
    {"dropped",
     {"there was no room for the block: it was not stored after it was computed, or not read, "
      "because a queue or the host tier was full",
      "`terrace status` says which queue drops: a larger host.size, disk.queue, lookup.pin_share "
      "or "
      "offload.step_bytes, or a faster disk"}},
    {"not_worth_it",
     {"the block was found, but to load it was predicted to take longer than to compute it",
      "nothing: this saves time. If the times below say otherwise, planner.enabled = false loads "
      "whatever is found"}},
    {"unkeyable",
     {"the request bears something that cannot be part of a key, so nothing of it is looked up or "
      "stored",
      "send such requests without it where they can do without; the others are not affected"}},
    {"paused",
     {"somebody paused Terrace in this engine: every look-up misses", "`terrace resume` ends it"}},
    {"shadow",
     {"the block was found, and was computed all the same: what comes out is compared with what is "
      "stored",
      "nothing: a share of the hits is checked so, shadow.share says how many"}},
    {"quarantined",
     {"a block that was computed anew came out other than the stored one, so nothing that is "
      "stored "
      "under this model and these settings is believed any more",
      "`terrace status` names the block, where both versions lie, and the file to remove once it "
      "is "
      "explained; then restart the engine"}},
    {"opted_out",
     {"this request is not to load: it asked for that (mode off), or needs what only computing "
      "gives, such as log-probabilities of its prompt",
      "send it without `kv_transfer_params` {\"terrace\": {\"mode\": \"off\"}}, or without asking "
      "for log-probabilities of the prompt"}},
    {"stores_only",
     {"this engine only stores, and loads nothing: kv_role is kv_producer",
      "start it with kv_role kv_both if it is to load, too"}},
    {"observes",
     {"this engine observes: nothing is stored or loaded",
      "start it with mode = on and a size; `terrace advise` says which"}},
    {"not_serving", {"Terrace did not serve when the request asked", "`terrace status` says why"}},
};

// Words of `text` in lines, each behind `indent` spaces.
std::string wrapped(std::string_view text, std::size_t indent) {
  std::string out;
  std::string line;
  const auto end_line = [&] {
    if (!line.empty()) out += std::string(indent, ' ') + line + '\n';
    line.clear();
  };
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (!line.empty() && indent + line.size() + 1 + word.size() > kColumns) end_line();
    if (!line.empty()) line += ' ';
    line += word;
  }
  end_line();
  return out;
}

Json parsed(std::string_view text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string ago(const Json& ledger, std::int64_t now) {
  const auto then = static_cast<std::int64_t>(number_in(ledger, "time"));
  if (text_in(ledger, "state") == "running") return "runs";
  return duration_name(static_cast<double>(std::max<std::int64_t>(now - then, 1)) * 1e9);
}

struct Split {
  double prompt = 0;
  double local = 0;
  double hit = 0;  // In all tiers.
  double pending = 0;
  double rest = 0;

  explicit Split(const Json& ledger)
      : prompt(number_in(ledger, "prompt_tokens")),
        local(number_in(ledger, "local_tokens")),
        pending(number_in(ledger, "pending_tokens")) {
    const Json hits = part_of(ledger, "hit_tokens", Json::value_t::object);
    for (const Json& tokens : hits) hit += tokens.is_number() ? tokens.get<double>() : 0;
    // Of a later turn of the same request more than the prompt may be found.
    rest = std::max(0.0, prompt - local - hit - pending);
  }
  [[nodiscard]] double percent(double tokens) const {
    return prompt > 0 ? std::min(100.0, 100 * tokens / prompt) : 0;
  }
};

std::string tokens_text(const Json& ledger, const Split& split) {
  std::string out = fmt::format("\n  tokens of the prompt {:>14.0f}\n", split.prompt);
  const auto line = [&](std::string_view what, double tokens) {
    fmt::format_to(std::back_inserter(out), "    {:<22} {:>10.0f} {:>6.1f} %\n", what, tokens,
                   split.percent(tokens));
  };
  if (split.local > 0) line("the engine's own cache", split.local);
  const Json hits = part_of(ledger, "hit_tokens", Json::value_t::object);
  for (const auto& [tier, tokens] : hits.items()) {
    if (tokens.is_number()) line(plain(tier, 22), tokens.template get<double>());
  }
  if (split.pending > 0) line("being loaded", split.pending);
  line("computed", split.rest);
  if (const double failed = number_in(ledger, "failed_tokens"); failed > 0) {
    out += fmt::format("    of these {:.0f} were promised and not delivered\n", failed);
  }
  return out;
}

// Why there is no reason of a miss.
std::string without_reason(const Json& ledger, const Split& split, double block_tokens) {
  const Json stages = part_of(ledger, "stages", Json::value_t::object);
  const bool is_running = text_in(ledger, "state") == "running";
  if (number_in(stages, "queued_ns") <= 0 && split.local + split.hit + split.pending <= 0) {
    return is_running ? "the engine has not asked for this request yet: it waits for its turn"
                      : "the engine never asked for this request: it ended before its turn came";
  }
  if (split.rest <= std::max(block_tokens, 1.0)) {
    return "nothing was missed: blocks are stored whole, and the end of a prompt, at least one "
           "token, is always computed";
  }
  return is_running ? "its look-up is not over yet" : "none was noted";
}

std::string reason_text(const Json& ledger, const Split& split, double block_tokens) {
  std::string reason = text_in(ledger, "first_miss", "");
  std::string_view title = "first miss";
  if (reason.empty()) {
    reason = text_in(ledger, "not_asked", "");
    title = "tiers not asked";
  }
  if (reason.empty()) {
    return fmt::format("\n  first miss: none\n{}",
                       wrapped(without_reason(ledger, split, block_tokens), 4));
  }
  const ReasonWords words = words_of(reason);
  std::string what(words.what.empty() ? "a reason that this version of the command does not know"
                                      : words.what);
  if (const std::string kind = text_in(ledger, "unkeyable", ""); !kind.empty()) {
    what += fmt::format(" ({})", plain(kind, 95));
  }
  std::string out = fmt::format("\n  {}: {}\n", title, plain(reason, 40)) + wrapped(what, 4);
  if (!words.way_out.empty()) out += "  way out:\n" + wrapped(words.way_out, 4);
  return out;
}

// The core times no step that computes a block or less of a prompt: it could as well decode.
std::string computed_text(const Json& stages, const Split& split, double block_tokens) {
  const double tokens = number_in(stages, "computed_tokens");
  if (tokens > 0 || split.rest > block_tokens) {
    return fmt::format("steps that computed {:.0f} tokens of the prompt", tokens);
  }
  return fmt::format("to compute {:.0f} tokens of the prompt: too few to be timed", split.rest);
}

std::string time_text(const Json& ledger, const Split& split, double block_tokens) {
  const Json stages = part_of(ledger, "stages", Json::value_t::object);
  std::string out = "\n  time\n";
  const auto line = [&](double nanoseconds, std::string_view what) {
    fmt::format_to(std::back_inserter(out), "    {:>9}  {}\n", duration_name(nanoseconds), what);
  };
  line(number_in(stages, "queued_ns"), "in the engine's queue, before the first look-up");
  line(number_in(ledger, "lookup_wait_ns"), "looked up, until what was found lay in host memory");
  line(number_in(stages, "placed_ns"), "until the engine had room for it");
  line(number_in(stages, "copied_ns"), "copied to the device and verified");
  line(number_in(stages, "computed_ns"), computed_text(stages, split, block_tokens));
  line(number_in(stages, "total_ns"), "in all, with the answer");
  return out;
}

std::string plan_text(const Json& ledger) {
  const Json plan = part_of(ledger, "plan", Json::value_t::object);
  if (plan.empty()) return "";
  std::string out =
      fmt::format("\n  plan: load {:.0f} of {:.0f} tokens found, the slowest from {}\n",
                  number_in(plan, "planned_tokens"), number_in(plan, "found_tokens"),
                  plain(text_in(plan, "slowest"), 20));
  fmt::format_to(std::back_inserter(out), "    {:<28} {:>10} {:>10}\n", "", "predicted", "took");
  const auto line = [&](std::string_view what, const char* predicted, const char* actual) {
    fmt::format_to(std::back_inserter(out), "    {:<28} {:>10}", what,
                   duration_name(number_in(plan, predicted)));
    if (actual != nullptr) {
      fmt::format_to(std::back_inserter(out), " {:>10}", duration_name(number_in(plan, actual)));
    }
    out += '\n';
  };
  line("loading them", "predicted_load_ns", "load_ns");
  line("computing them instead", "predicted_recompute_ns", nullptr);
  if (const double rest = number_in(plan, "recomputed_tokens"); rest > 0) {
    line(fmt::format("computing {:.0f} others", rest), "", "recompute_ns");
  }
  if (is_true_in(plan, "abandoned")) {
    out += "    the load took too long: what was missing was computed\n";
  }
  return out;
}

}  // namespace

ReasonWords words_of(std::string_view reason) {
  const auto* const found =
      std::ranges::find(kWords, reason, &std::pair<std::string_view, ReasonWords>::first);
  return found == std::end(kWords) ? ReasonWords{} : found->second;
}

std::string plain(std::string_view text, std::size_t width) {
  std::string out(text.substr(0, width));
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) c = '?';
  }
  if (text.size() > width && width > 0) out.back() = '~';
  return out;
}

std::string duration_name(double nanoseconds) {
  if (nanoseconds <= 0) return "-";
  constexpr std::array<std::pair<double, std::string_view>, 5> kUnits = {
      {{1e3, "us"}, {1e6, "ms"}, {1e9, "s"}, {60e9, "min"}, {3600e9, "h"}}};
  auto unit = kUnits.front();
  for (const auto& one : kUnits) {
    // Two minutes before they are minutes: 90 s is plainer than 1.5 min.
    const double from = one.first >= 60e9 ? 2 * one.first : one.first;
    if (nanoseconds >= from) unit = one;
  }
  const double value = nanoseconds / unit.first;
  return fmt::format("{:.{}f} {}", value, value < 10 && unit.first < 60e9 ? 1 : 0, unit.second);
}

std::string why_text(std::string_view ledger, std::string_view engine, std::uint64_t block_tokens,
                     std::int64_t now) {
  const Json json = parsed(ledger);
  const Split split(json);
  const std::string name = text_in(json, "request", "");
  const std::string state = text_in(json, "state");
  const std::string whose = fmt::format("request {}", name.empty() ? "?" : plain(name, 95));
  const std::string at = fmt::format("of {}", plain(engine, 95));
  const std::string when =
      state == "running" ? "runs" : fmt::format("ended {} ago", ago(json, now));
  const bool is_short = whose.size() + at.size() + when.size() + 3 <= kColumns;
  std::string out = is_short ? fmt::format("{} {}: {}\n", whose, at, when)
                             : fmt::format("{}: {}\n  {}\n", whose, when, at);
  if (state == "reporting") out += "  some of its loads are not reported yet\n";
  out += tokens_text(json, split);
  const auto block = static_cast<double>(block_tokens);
  out += reason_text(json, split, block);
  out += time_text(json, split, block);
  out += plan_text(json);
  return out;
}

std::string ledger_heading() {
  return fmt::format("{:<{}} {:>7} {:>7} {:>6} {:>6}  {}\n", "request", kIdColumns, "ago", "prompt",
                     "engine", "tiers", "first miss");
}

std::string ledger_line(std::string_view ledger, std::int64_t now) {
  const Json json = parsed(ledger);
  const Split split(json);
  const std::string name = text_in(json, "request", "");
  std::string reason = text_in(json, "first_miss", "");
  if (reason.empty()) reason = text_in(json, "not_asked", "-");
  return fmt::format("{:<{}} {:>7} {:>7.0f} {:>5.0f}% {:>5.0f}%  {}\n",
                     name.empty() ? "?" : plain(name, kIdColumns), kIdColumns,
                     plain(ago(json, now), 7), std::min(split.prompt, 9999999.0),
                     split.percent(split.local), split.percent(split.hit + split.pending),
                     plain(reason, 15));
}

}  // namespace terrace::cli
