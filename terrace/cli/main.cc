#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "terrace/cli/commands_internal.h"

namespace terrace::cli {
namespace {

struct LiveCommand {
  LiveOptions options;
  CLI::App* command = nullptr;
};

struct Commands {
  CLI::App app{"Terrace: a tiered KV cache for LLM engines.", "terrace"};
  ConfigOptions config;
  MetricsOptions metrics;
  InspectOptions inspect;
  ObjectGcOptions object_gc;
  BackendCheckOptions backend;
  std::array<LiveCommand, 4> live;
  ScrubOptions scrub;
  AdviseOptions advise;
  WhyOptions why;
  TopOptions top;
  VerifyOptions verify;
  WipeOptions wipe;
  MoveOptions move;
  SimulateOptions simulate;
  bool is_version = false;
  bool is_version_json = false;
  bool is_list = false;
  CLI::App* config_command = nullptr;
  CLI::App* metrics_command = nullptr;
  CLI::App* inspect_command = nullptr;
  CLI::App* object_gc_command = nullptr;
  CLI::App* backend_command = nullptr;
  CLI::App* scrub_command = nullptr;
  CLI::App* advise_command = nullptr;
  CLI::App* why_command = nullptr;
  CLI::App* top_command = nullptr;
  CLI::App* verify_command = nullptr;
  CLI::App* wipe_command = nullptr;
  CLI::App* move_command = nullptr;
  CLI::App* simulate_command = nullptr;
  CLI::App* version_command = nullptr;
  CLI::App* key_command = nullptr;
  CLI::App* key_new_command = nullptr;
  std::string key_path;
  KeyIdOptions key_id;
};

// Where the settings are that an engine would have.
void declare_settings(CLI::App* command, SettingsOptions& options) {
  command->add_option("--file", options.file, "Read this TOML file (absolute path).");
  command->add_option("--set", options.set, "Set name=value above all other sources; repeatable.")
      ->allow_extra_args(false)
      ->check([](const std::string& text) {
        return text.contains('=') ? std::string() : text + ": give name=value";
      });
}

void declare_config(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "config",
      "Print the effective settings and where each comes from; refuse what a start would.");
  ConfigOptions& options = commands.config;
  command->add_flag("--explain", options.is_explain, "Describe every setting instead.");
  command->add_flag("--json", options.is_json, "Print JSON.");
  command->add_flag("--markdown", options.is_markdown, "Print docs/settings.md instead.");
  command->add_option("--file", options.file, "Read this TOML file (absolute path).");
  command->add_option("--engine", options.engine_json, "The engine's own settings, a JSON object.");
  command->add_option("--set", options.set, "Set name=value above all other sources; repeatable.")
      ->allow_extra_args(false);
  commands.config_command = command;
}

void declare_metrics(Commands& commands) {
  CLI::App* command =
      commands.app.add_subcommand("metrics", "List the metrics and what they mean.");
  command->add_flag("--list", commands.is_list, "List all names (the default).");
  command->add_flag("--json", commands.metrics.is_json, "Print JSON.");
  command->add_flag("--markdown", commands.metrics.is_markdown, "Print docs/metrics.md.");
  commands.metrics_command = command;
}

void declare_inspect(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "inspect", "Show what lies in disk directories, and which fields keep namespaces apart.");
  command->add_option("path", commands.inspect.paths,
                      "Directories as in disk.paths, or terrace-NN; none = those of the settings.");
  command->add_option("--against", commands.inspect.against,
                      "File with a fingerprint in clear text: say which fields differ from it.");
  declare_settings(command, commands.inspect.settings);
  command->add_flag("--json", commands.inspect.is_json, "Print JSON.");
  commands.inspect_command = command;
}

void declare_object(Commands& commands) {
  CLI::App* object = commands.app.add_subcommand("object", "Work on the shared store.");
  object->require_subcommand(1);
  CLI::App* command = object->add_subcommand(
      "gc",
      "Remove packs that object.max_age, object.size and object.blocks leave no room for; the "
      "store is the settings'.");
  ObjectGcOptions& options = commands.object_gc;
  command->add_flag("--dry-run", options.is_dry_run, "Only say what would be removed.");
  command->add_flag("--json", options.is_json, "Print JSON.");
  declare_settings(command, options.settings);
  command
      ->add_option("--rate", options.requests_per_second, "Requests per second; engines go first.")
      ->check(CLI::Range(1, 100'000));
  commands.object_gc_command = command;
}

void declare_key(Commands& commands) {
  CLI::App* command =
      commands.app.add_subcommand("key", "Make keys for encryption at rest, and tell their ids.");
  command->require_subcommand(1);
  CLI::App* make = command->add_subcommand("new", "Write a new key to a new file.");
  make->add_option("path", commands.key_path, "File to make.")->required();
  CLI::App* tell = command->add_subcommand(
      "id", "Print what the key in a file is called, or those that the settings name.");
  tell->add_option("path", commands.key_id.path, "File with a key; none = those of the settings.");
  declare_settings(tell, commands.key_id.settings);
  tell->add_flag("--json", commands.key_id.is_json, "Print JSON.");
  commands.key_command = command;
  commands.key_new_command = make;
}

void declare_engine(CLI::App* command, LiveOptions& options) {
  command->add_option("--engine", options.engine, "Id of the engine meant, if several run.");
  command->add_flag("--all", options.is_all, "All of them.");
  command->add_option("--directory", options.directory,
                      "attach.directory of the engine; none = that of the settings.");
  command->add_flag("--json", options.is_json, "Print JSON.");
}

void declare_live(Commands& commands) {
  constexpr std::pair<const char*, const char*> kTexts[] = {
      {"status", "Ask running engines how they are."},
      {"pause", "Switch Terrace off in a running engine: it only misses, and stores nothing."},
      {"readonly", "Let a running engine hit, and store nothing new."},
      {"resume", "End pause or readonly."}};
  for (std::size_t i = 0; i < commands.live.size(); ++i) {
    LiveOptions& options = commands.live[i].options;
    options.verb = static_cast<LiveVerb>(i);
    CLI::App* command = commands.app.add_subcommand(kTexts[i].first, kTexts[i].second);
    declare_engine(command, options);
    commands.live[i].command = command;
  }
}

void declare_backend(Commands& commands) {
  CLI::App* group =
      commands.app.add_subcommand("backend", "Backends that were built outside Terrace.");
  group->require_subcommand(1);
  CLI::App* command = group->add_subcommand(
      "check", "Run the contract of disk backends on a library, and say what it keeps.");
  BackendCheckOptions& options = commands.backend;
  command->add_option("library", options.library, "The plug-in (include/terrace/backend.h).")
      ->required();
  command->add_option("--directory", options.directory,
                      "Where files are made and removed; as on the disk that is meant.");
  command->add_option("--patience", options.patience_s, "Seconds that one transfer may take.")
      ->check(CLI::Range(0.01, 3600.0));
  command->add_option("--seed", options.seed, "Of random traffic.");
  command->add_flag("--json", options.is_json, "Print JSON.");
  options.progress = [](const std::string& line) { std::fputs(line.c_str(), stderr); };
  commands.backend_command = group;
}

void declare_scrub(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "scrub", "Let a running engine verify what lies on its disks, in idle time.");
  declare_engine(command, commands.scrub.live);
  command->add_flag("--wait", commands.scrub.is_waiting,
                    "Wait until it is done, and show progress.");
  command->add_option("--rate", commands.scrub.rate,
                      "Bytes a second at most, such as 64MiB; none = disk.scrub_rate.");
  commands.scrub_command = command;
}

void declare_advise(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "advise", "What host and disk tiers of other sizes would do for a running engine.");
  declare_engine(command, commands.advise.live);
  command->add_option("--host", commands.advise.host, "Only of this size of host, such as 8GiB.");
  command->add_option("--disk", commands.advise.disk, "Only of this size of disk.");
  commands.advise_command = command;
}

void declare_why(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "why", "Why a request hit or missed: tokens per tier, time per stage, plan, way out.");
  command->add_option("request", commands.why.request,
                      "The engine's id of it, or how that begins; none = list the last ones.");
  declare_engine(command, commands.why.live);
  commands.why_command = command;
}

void declare_top(Commands& commands) {
  CLI::App* command =
      commands.app.add_subcommand("top", "Watch running engines: rates, tiers, misses, requests.");
  declare_engine(command, commands.top.live);
  command->add_flag("--once", commands.top.is_once,
                    "Print it once; so it does where standard output is no terminal.");
  command->add_option("--every", commands.top.every_s, "Seconds between looks.")
      ->check(CLI::Range(0.2, 3600.0));
  commands.top_command = command;
}

void declare_verify(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "verify",
      "Read all that lies in disk directories and report what is damaged; change nothing.");
  command->add_option("path", commands.verify.paths, "Directories as in disk.paths, or terrace-NN.")
      ->required();
  command->add_flag(
      "--offline", commands.verify.is_offline,
      "Required: read only directories that no engine has. For a running engine: terrace scrub.");
  declare_settings(command, commands.verify.settings);
  command->add_flag("--json", commands.verify.is_json, "Print JSON.");
  commands.verify_command = command;
}

void declare_wipe(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "wipe", "Remove what Terrace wrote in disk directories, and only that.");
  command->add_option("path", commands.wipe.paths, "Directories as in disk.paths, or terrace-NN.")
      ->required();
  command
      ->add_option("--namespace", commands.wipe.name_space,
                   "Only this one: ns-0001, or the first 8 or more digits of its content digest.")
      // As a script gives whose variable is not set: it must not mean all.
      ->check([](const std::string& text) {
        return text.empty() ? std::string("is empty; leave --namespace out to remove all")
                            : std::string();
      });
  command->add_flag("--yes", commands.wipe.is_sure,
                    "Really remove; without it what would go is only shown.");
  command->add_flag("--json", commands.wipe.is_json, "Print JSON.");
  commands.wipe_command = command;
}

void declare_move(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "move",
      "Move disk directories to another path or file system; run it again if it was killed.");
  command->add_option("from", commands.move.from, "As in disk.paths, or terrace-NN.")->required();
  command->add_option("to", commands.move.to, "As in disk.paths.")->required();
  command->add_flag("--json", commands.move.is_json, "Print JSON.");
  commands.move_command = command;
}

void declare_simulate_costs(CLI::App& command, SimulateOptions& options) {
  command
      .add_option("--prefill-rate", options.prefill_rate,
                  "Tokens that the engine computes a second.")
      ->check(CLI::Range(1.0, 1e9));
  command.add_option("--token-bytes", options.token_bytes, "KV of one token.");
  command.add_option("--host-bandwidth", options.host_bandwidth,
                     "Bytes a second from host memory to the device.");
  command.add_option("--disk-bandwidth", options.disk_bandwidth, "Bytes a second from disk.");
  command.add_option("--disk-latency", options.disk_latency, "Of one load from disk.");
}

void declare_simulate(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand(
      "simulate", "Replay recorded prompts through the catalog: what would these sizes hit?");
  SimulateOptions& options = commands.simulate;
  command->add_option("trace", options.traces,
                      "Mooncake JSONL, or conversations as .json or in a .tar; also .zst.");
  command->add_option("--host", options.host,
                      "Blocks in host memory, or their share of the distinct ones, such as 2%.");
  command->add_option("--disk", options.disk, "The same on disk; 0 = no disk.");
  const auto add_list = [&](const char* name, std::vector<std::string>& list, const char* text) {
    return command->add_option(name, list, text)->delimiter(',')->allow_extra_args(false);
  };
  add_list("--policy", options.policies, "Who is evicted; several: a,b.");
  command->add_option("--preset", options.preset, "Take what is not said here from this preset.");
  command->add_option("--admission", options.admission, "What enters the disk: disk.admission.");
  command->add_option("--admission-loss", options.admission_loss,
                      "What `expected` may lose: disk.admission_loss.");
  command->add_option("--write", options.write, "When it is written: disk.write.");
  command->add_option("--scope", options.scope, "Whether answers are stored: offload.scope.");
  add_list("--scenario", options.scenario,
           "Mix in a one-pass batch job (scan), a rush of other users (burst), or both; without a "
           "trace beside one that is made up: chat, rag or batch.");
  command->add_flag("--compare", options.is_compared,
                    "Draw the policies beside lru and the optimum, over --sizes of host.");
  add_list("--sizes", options.sizes, "As --host, several: 1%,2%.");
  command->add_option("--seed", options.seed, "Of when conversations start, and of scenarios.");
  command->add_option("--window", options.window_minutes, "Minutes in which conversations start.")
      ->check(CLI::Range(0.0, 1e6));
  command->add_option("--rate", options.rate, "So many times as many requests a second.")
      ->check(CLI::Range(0.001, 1000.0));
  command->add_option("--block-tokens", options.block_tokens,
                      "A multiple of the trace's own; 0 = its own.");
  declare_simulate_costs(*command, options);
  command->add_flag("--json", options.is_json, "Print one JSON object a line.");
  commands.simulate_command = command;
}

void declare_version(Commands& commands) {
  CLI::App* command = commands.app.add_subcommand("version", "Print the version.");
  command->add_flag("--json", commands.is_version_json, "Print JSON.");
  commands.version_command = command;
}

std::vector<CLI::App*> commands_of(CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// Else numbers are read as C reads them, which has -1 for 2^64 - 1, and 010 for 8.
void take_decimals_alone(CLI::App& app) {
  const CLI::Validator is_decimal(
      [](std::string& text) {
        std::uint64_t number = 0;
        const char* const end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, number);
        if (error != std::errc() || rest != end) {
          return fmt::format("{}: give a whole number from 0 to {}", text, UINT64_MAX);
        }
        text = fmt::to_string(number);
        return std::string();
      },
      "");
  std::vector<CLI::App*> left = commands_of(app);
  while (!left.empty()) {
    CLI::App* const command = left.back();
    left.pop_back();
    std::ranges::copy(commands_of(*command), std::back_inserter(left));
    for (CLI::Option* const option : command->get_options()) {
      if (option->get_type_name().starts_with("UINT")) option->transform(is_decimal);
    }
  }
}

Answer answer(const Commands& commands) {
  if (commands.config_command->parsed()) return run_config(commands.config);
  if (commands.metrics_command->parsed()) return run_metrics(commands.metrics);
  if (commands.inspect_command->parsed()) return run_inspect(commands.inspect);
  if (commands.object_gc_command->parsed()) return run_object_gc(commands.object_gc);
  if (commands.backend_command->parsed()) return run_backend_check(commands.backend);
  if (commands.key_command->parsed()) {
    return commands.key_new_command->parsed() ? run_key_new(commands.key_path)
                                              : run_key_id(commands.key_id);
  }
  for (const LiveCommand& live : commands.live) {
    if (live.command->parsed()) return run_live(live.options);
  }
  if (commands.advise_command->parsed()) return run_advise(commands.advise);
  if (commands.why_command->parsed()) return run_why(commands.why);
  if (commands.top_command->parsed()) return run_top(commands.top);
  if (commands.scrub_command->parsed()) return run_scrub(commands.scrub);
  if (commands.verify_command->parsed()) return run_verify(commands.verify);
  if (commands.wipe_command->parsed()) return run_wipe(commands.wipe);
  if (commands.move_command->parsed()) return run_move(commands.move);
  if (commands.simulate_command->parsed()) return run_simulate(commands.simulate);
  return run_version(commands.is_version_json);  // Or `--version`.
}

std::vector<const CLI::App*> all_commands(const Commands& commands) {
  return commands.app.get_subcommands([](const CLI::App*) { return true; });
}

// The word that stands where a sub-command has to, when it is none; empty otherwise.
std::string unknown_command(const Commands& commands, int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  if (word.empty() || word.front() == '-') return "";
  const bool is_known = std::ranges::any_of(
      all_commands(commands), [&](const CLI::App* command) { return command->check_name(word); });
  return is_known ? "" : word;
}

int refuse_command(const Commands& commands, const std::string& word) {
  std::string text = fmt::format("terrace: there is no sub-command '{}'; there are:\n", word);
  for (const CLI::App* command : all_commands(commands)) {
    text += fmt::format("  {:<10} {}\n", command->get_name(), command->get_description());
  }
  std::fputs(text.c_str(), stderr);
  return kUsage;
}

int run(int argc, char** argv) {
  Commands commands;
  // None is for `--version` alone.
  commands.app.require_subcommand(0, 1);
  commands.app.add_flag("--version", commands.is_version, "Print the version.");
  commands.app.footer(
      "Exit codes: 0 done; 1 failed, or something is wrong with what was asked about; "
      "2 command line not understood.");
  declare_config(commands);
  declare_metrics(commands);
  declare_inspect(commands);
  declare_object(commands);
  declare_key(commands);
  declare_live(commands);
  declare_backend(commands);
  declare_scrub(commands);
  declare_advise(commands);
  declare_why(commands);
  declare_top(commands);
  declare_verify(commands);
  declare_wipe(commands);
  declare_move(commands);
  declare_simulate(commands);
  declare_version(commands);
  take_decimals_alone(commands.app);
  if (const std::string word = unknown_command(commands, argc, argv); !word.empty()) {
    return refuse_command(commands, word);
  }
  try {
    commands.app.parse(argc, argv);
    if (!commands.is_version && commands.app.get_subcommands().empty()) {
      throw CLI::RequiredError("A subcommand");
    }
  } catch (const CLI::ParseError& error) {
    // Also how `--help` ends, with code 0.
    return commands.app.exit(error) == 0 ? kDone : kUsage;
  }
  const Answer result = answer(commands);
  std::fputs(result.out.c_str(), stdout);
  std::fputs(result.error.c_str(), stderr);
  return std::fflush(stdout) == 0 ? result.exit_code : kFailed;
}

}  // namespace
}  // namespace terrace::cli

int main(int argc, char** argv) {
  try {
    return terrace::cli::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "terrace: %s\n", error.what());
    return terrace::cli::kFailed;
  }
}
