#include "terrace/serve/object_stores.h"

#include <fmt/format.h>

#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "terrace/base/thread.h"
#include "terrace/tier/first_look.h"
#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::serve {

namespace {

transfer::S3Options s3_options(const config::ObjectSettings& object) {
  transfer::S3Options options;
  options.endpoint = object.endpoint;
  options.bucket = object.bucket;
  options.prefix = object.prefix;
  options.region = object.region;
  options.uses_path_style = object.style == config::ObjectStyle::kPath;
  options.credentials = {.key_id = object.access_key,
                         .secret_key = object.secret_key,
                         .session_token = object.session_token};
  options.credentials_file = object.credentials_file;
  options.profile = object.profile;
  options.ca_file = object.ca_file;
  options.depth = object.depth;
  return options;
}

using Opened = Result<std::unique_ptr<transfer::ObjectStore>>;

// With the setting to look at, which the store does not know.
Opened named(Opened store, std::string_view setting, std::string_view way_out) {
  if (store) return store;
  const Status& why = store.error();
  const std::string& text = why.message();
  return fail(why.code(),
              fmt::format("{}: {}{}", setting, text, text.contains("; ") ? "" : way_out),
              why.scope());
}

// A mount may take longer; then the store opens at one of the next tries.
constexpr Nanoseconds kAnswersWithin = seconds(2);

// Its jobs keep `asking` until they are over, or dropped before they began.
class ToldHand final : public Hands {
 public:
  ToldHand(std::unique_ptr<Hands> hand, std::shared_ptr<int> asking)
      : hand_(std::move(hand)), asking_(std::move(asking)) {}
  void post(Job job, bool is_urgent) override {
    hand_->post([job = std::move(job), asking = asking_] { job(); }, is_urgent);
  }

 private:
  std::unique_ptr<Hands> hand_;
  const std::shared_ptr<int> asking_;
};

// Whether anybody answers for a shared directory, before its store is opened. A call that hangs
// keeps its thread: as long as it does no other is made, however often the store is tried.
class Answers {
 public:
  explicit Answers(std::string path) : path_(std::move(path)) {}
  // Empty = somebody does.
  [[nodiscard]] std::string why_not(const Clock& clock, LogSink& log) {
    if (!asking_.expired()) return why_not_;
    auto asking = std::make_shared<int>();
    asking_ = asking;
    const auto make_hand = [asking = std::move(asking)](
                               const std::string& /*name*/) -> Result<std::unique_ptr<Hands>> {
      TERRACE_ASSIGN_OR_RETURN(auto hand, lone_hand("terrace-store"));
      return std::make_unique<ToldHand>(std::move(hand), asking);
    };
    const auto found =
        tier::look_first(std::span(&path_, 1), make_hand, kAnswersWithin, clock, log);
    why_not_ = found.silent.empty() ? std::string() : found.silent.front().why;
    return why_not_;
  }

 private:
  const std::string path_;
  std::weak_ptr<int> asking_;  // By whoever still asks.
  std::string why_not_;
};

Opened open_directory(const transfer::DirStoreOptions& options) {
  return named(transfer::make_dir_store(options), "object.path",
               "; let this user read and write there, or name another folder");
}

Opened open_bucket(const transfer::S3Options& options, const Clock& clock, LogSink& log) {
  auto store = transfer::make_s3_store(options, clock, log);
  if (store) return store;
  // "s3 region …" and the like tell an option, which has the setting's name.
  constexpr std::string_view kStart = "s3 ";
  std::string_view option = store.error().message();
  if (option.starts_with(kStart)) option.remove_prefix(kStart.size());
  for (const char* const name : {"endpoint", "bucket", "region", "prefix", "depth"}) {
    if (option.starts_with(name))
      return named(std::move(store), fmt::format("object.{}", name), "");
  }
  const bool is_key = option.starts_with("credentials");
  return named(std::move(store),
               is_key ? "object.access_key, object.credentials_file" : "object.enabled", "");
}

}  // namespace

OpenObjectStore object_store(const config::ObjectSettings& object, bool may_begin) {
  if (!object.path.empty()) {
    transfer::DirStoreOptions dir;
    dir.path = object.path;
    dir.depth = object.depth;
    dir.is_group_shared = object.shared_group;
    dir.may_begin = may_begin;
    return [dir, answers = std::make_shared<Answers>(dir.path)](const Clock& clock,
                                                                LogSink& log) -> Opened {
      if (const std::string why = answers->why_not(clock, log); !why.empty()) {
        return fail(Code::kUnavailable,
                    fmt::format("object.path: {}; see why its file system does not answer", why));
      }
      return open_directory(dir);
    };
  }
  if (!object.enabled) return {};
  return [s3 = s3_options(object)](const Clock& clock, LogSink& log) {
    return open_bucket(s3, clock, log);
  };
}

tier::CollectOptions collect_options(const config::ObjectSettings& object) {
  tier::CollectOptions options;
  options.bounds = {
      .max_age = object.max_age, .bytes = object.size.value(), .blocks = object.blocks.value()};
  options.every = object.gc_every;
  options.touch_every = object.touch_every;
  return options;
}

}  // namespace terrace::serve
