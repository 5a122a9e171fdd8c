// `terrace verify`, `wipe` and `move`: what is done to disk directories that no engine has.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/cli/commands_internal.h"
#include "terrace/cli/inspect_text.h"
#include "terrace/cli/progress_line.h"
#include "terrace/tier/disk/inspect.h"
#include "terrace/tier/disk/move.h"
#include "terrace/tier/disk/verify.h"
#include "terrace/tier/disk/wipe.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostShown = 100;  // Of the damage in one namespace, as text; JSON has all.

Json damage_json(const tier::Damage& damage) {
  return {{"file", damage.file},   {"offset", damage.offset}, {"key", damage.key},
          {"group", damage.group}, {"rank", damage.rank},     {"reason", damage.reason}};
}

Json owner_json(const tier::VerifiedOwner& owner) {
  Json out{{"directory", owner.directory},
           {"good", owner.is_good()},
           {"in_use", owner.is_in_use},
           {"problem", owner.problem},
           {"damaged_extents", owner.damaged_extents},
           {"namespaces", Json::array()}};
  for (const tier::VerifiedNamespace& one : owner.namespaces) {
    Json damage = Json::array();
    for (const tier::Damage& item : one.damage) damage.push_back(damage_json(item));
    out["namespaces"].push_back({{"number", one.number},
                                 {"content_digest", one.content_digest},
                                 {"layout_digest", one.layout_digest},
                                 {"problem", one.problem},
                                 {"sealed_blocks", one.sealed_blocks},
                                 {"good_blocks", one.good_blocks},
                                 {"damaged_blocks", one.damaged_blocks},
                                 {"damaged_records", one.damaged_records},
                                 {"unread_blocks", one.unread_blocks},
                                 {"bytes", one.bytes},
                                 {"encryption", key_uses_json<Json>(one.encryption)},
                                 {"damage", std::move(damage)},
                                 {"damage_left_out", one.damage_left_out}});
  }
  return out;
}

void write_namespace(const tier::VerifiedNamespace& one, bool has_keys, std::string& out) {
  auto end = std::back_inserter(out);
  fmt::format_to(end, "  ns-{:04} {}: {} blocks, {} good, {} damaged", one.number,
                 one.content_digest.empty() ? "?" : one.content_digest.substr(0, 12),
                 one.sealed_blocks, one.good_blocks, one.damaged_blocks);
  if (one.unread_blocks > 0) fmt::format_to(end, ", {} not read", one.unread_blocks);
  if (one.damaged_records > 0) fmt::format_to(end, "; {} damaged records", one.damaged_records);
  out += '\n';
  out += key_uses_text(one.encryption, has_keys, /*was_opened=*/true, "    ");
  if (!one.problem.empty()) fmt::format_to(end, "    problem: {}\n", one.problem);
  const std::size_t shown = std::min(one.damage.size(), kMostShown);
  for (std::size_t i = 0; i < shown; ++i) {
    const tier::Damage& item = one.damage[i];
    fmt::format_to(end, "    damaged: {} at {}", item.file, item.offset);
    if (!item.key.empty()) {
      fmt::format_to(end, ": key {}, group {}, rank {}", item.key, item.group, item.rank);
    }
    fmt::format_to(end, ": {}\n", item.reason);
  }
  if (const std::uint64_t more = one.damage.size() - shown + one.damage_left_out; more > 0) {
    fmt::format_to(end, "    … and {} more\n", more);
  }
}

void write_owner(const tier::VerifiedOwner& owner, bool has_keys, std::string& out) {
  auto end = std::back_inserter(out);
  if (owner.is_in_use) {
    fmt::format_to(end,
                   "{}: in use by an engine: not verified; terrace scrub lets the engine do it\n",
                   owner.directory);
    return;
  }
  fmt::format_to(end, "{}: {}\n", owner.directory, owner.is_good() ? "good" : "not good");
  if (!owner.problem.empty()) fmt::format_to(end, "  problem: {}\n", owner.problem);
  if (owner.damaged_extents > 0) {
    fmt::format_to(end, "  {} damaged records in extents.meta: the blocks there are misses\n",
                   owner.damaged_extents);
  }
  for (const tier::VerifiedNamespace& one : owner.namespaces) write_namespace(one, has_keys, out);
}

}  // namespace

Answer run_verify(const VerifyOptions& options) {
  if (!options.is_offline) {
    return {kUsage, "",
            "terrace verify: give --offline to read directories that no engine has; terrace scrub "
            "lets a running engine verify its own\n"};
  }
  Answer answer;
  Json all = Json::array();
  // Without them what is stored can still be verified.
  const auto keys = keys_at_hand(options.settings);
  const bool has_keys = keys && *keys != nullptr;
  if (!keys) {
    answer.exit_code = kFailed;
    answer.error = fmt::format("terrace verify: no keys: {}\n", keys.error().message());
  }
  for (const std::string& path : options.paths) {
    ProgressLine line("verify");
    const auto owners = tier::verify_directory(
        path,
        [&](const tier::VerifyProgress& progress) {
          line.tell(progress.directory, progress.blocks, progress.of);
        },
        has_keys ? *keys : nullptr);
    if (!owners.has_value()) {
      answer.exit_code = kFailed;
      answer.error += fmt::format("terrace verify: {}: {}\n", path, owners.error().message());
      continue;
    }
    const auto leftovers = tier::inspect_leftovers(path);
    if (owners->empty() && (!leftovers || leftovers->empty())) {
      answer.error += fmt::format("terrace verify: {}: no terrace-NN lies there\n", path);
    }
    Json json{{"path", path}, {"owners", Json::array()}, {"not_read", Json::array()}};
    for (const std::string& directory : leftovers.value_or(std::vector<std::string>())) {
      answer.exit_code = kFailed;
      answer.error += "terrace verify: not read: " + leftover_text(directory);
      json["not_read"].push_back(directory);
    }
    for (const tier::VerifiedOwner& owner : *owners) {
      if (!owner.is_good()) answer.exit_code = kFailed;
      write_owner(owner, has_keys, answer.out);
      json["owners"].push_back(owner_json(owner));
    }
    all.push_back(std::move(json));
  }
  if (options.is_json) {
    answer.out = all.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  return answer;
}

namespace {

// What `shadow.evidence` is by default lies beside the owner directories. Empty
// = there is none.
std::string evidence_in(const std::string& path) {
  const std::string directory = path + "/evidence";
  std::error_code ignored;
  return std::filesystem::is_directory(directory, ignored) ? directory : std::string();
}

void write_wiped(const tier::WipedOwner& owner, bool is_dry, std::string& out) {
  auto end = std::back_inserter(out);
  if (!owner.problem.empty()) {
    fmt::format_to(end, "{}: not wiped: {}\n", owner.directory, owner.problem);
    return;
  }
  fmt::format_to(end, "{}: {} {} MiB:\n", owner.directory, is_dry ? "would remove" : "removed",
                 owner.bytes >> 20U);
  for (const std::string& name : owner.names) fmt::format_to(end, "  {}\n", name);
  for (const std::string& name : owner.left) {
    fmt::format_to(end, "  not Terrace's, stays: {}\n", name);
  }
}

Json wiped_json(const tier::WipedOwner& owner) {
  return {{"directory", owner.directory}, {"wiped", owner.is_wiped}, {"problem", owner.problem},
          {"bytes", owner.bytes},         {"names", owner.names},    {"left", owner.left}};
}

}  // namespace

Answer run_wipe(const WipeOptions& options) {
  Answer answer;
  Json all = Json::array();
  bool is_found = false;
  for (const std::string& path : options.paths) {
    ProgressLine line("wipe");
    tier::WipeOptions wish;
    wish.name_space = options.name_space;
    wish.is_dry = !options.is_sure;
    wish.progress = [&](const tier::WipeProgress& progress) {
      line.tell(progress.file, progress.bytes, progress.of);
    };
    const auto owners = tier::wipe_directory(path, wish);
    if (!owners.has_value()) {
      answer.exit_code = owners.error().code() == Code::kInvalid ? kUsage : kFailed;
      answer.error += fmt::format("terrace wipe: {}: {}\n", path, owners.error().message());
      continue;
    }
    if (const std::string evidence = evidence_in(path);
        !evidence.empty() && options.name_space.empty()) {
      answer.error += fmt::format(
          "terrace wipe: {} stays: it may hold KV in the clear, and keep engines from serving: "
          "delete it when nobody needs it any more\n",
          evidence);
    }
    for (const tier::WipedOwner& owner : *owners) {
      is_found = true;
      if (!owner.problem.empty()) answer.exit_code = kFailed;
      write_wiped(owner, wish.is_dry, answer.out);
      all.push_back(wiped_json(owner));
    }
  }
  if (!is_found && answer.exit_code == kDone) {
    answer.error += "terrace wipe: nothing of the kind lies there\n";
  } else if (!options.is_sure && answer.exit_code != kUsage) {
    answer.error += "terrace wipe: nothing was removed; --yes does it\n";
  }
  if (options.is_json) {
    answer.out = all.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  return answer;
}

Answer run_move(const MoveOptions& options) {
  Answer answer;
  std::vector<tier::MovedOwner> moved;
  {
    ProgressLine line("move");
    tier::MoveOptions wish;
    wish.progress = [&](const tier::MoveProgress& progress) {
      line.tell(fmt::format("{} {}", progress.step, progress.file), progress.bytes, progress.of);
    };
    auto done = tier::move_directory(options.from, options.to, wish);
    if (!done.has_value()) {
      return {kFailed, options.is_json ? "[]\n" : "",
              fmt::format("terrace move: {}\n", done.error().message())};
    }
    moved = *std::move(done);
  }
  if (const std::string evidence = evidence_in(options.from); !evidence.empty()) {
    answer.error += fmt::format(
        "terrace move: {} stays: a quarantine that lies in it holds only for engines that look "
        "there: copy it to {}/evidence, or set shadow.evidence\n",
        evidence, options.to);
  }
  Json all = Json::array();
  for (const tier::MovedOwner& one : moved) {
    all.push_back({{"from", one.from},
                   {"to", one.to},
                   {"moved", one.problem.empty()},
                   {"renamed", one.was_renamed},
                   {"bytes", one.bytes},
                   {"problem", one.problem}});
    if (one.problem.empty()) {
      fmt::format_to(std::back_inserter(answer.out), "{} is now {}: {} MiB{}\n", one.from, one.to,
                     one.bytes >> 20U, one.was_renamed ? ", renamed" : "");
      continue;
    }
    answer.exit_code = kFailed;
    answer.error += fmt::format("terrace move: {}\n", one.problem);
  }
  if (options.is_json) {
    answer.out = all.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  return answer;
}

}  // namespace terrace::cli
