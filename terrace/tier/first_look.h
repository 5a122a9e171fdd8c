// A first look at paths, before anything is opened there: of the disk tier, and of a shared
// directory. A file server that is away keeps whoever asks it, for ever: so each path is asked by a
// hand of its own, all at the same time, and one that has not answered within a limit is asked
// nothing more. Its hand is let go, and ends behind the call. A server that goes away after it has
// answered here keeps the opening thread as before. Threading: look_first() is any thread's; a
// FirstLook does not change.  Waits: look_first(), at most its limit; without hands it asks nobody.
// Source: docs/adr/0041-paths-are-looked-at-aside.md.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/hands.h"
#include "terrace/base/log.h"
#include "terrace/base/status.h"

namespace terrace::tier {

// Makes a hand of the name given, for calls that a file server which is away may keep for ever: one
// that is let go while it is at a job, as lone_hand() has it.
using MakeHand = std::function<Result<std::unique_ptr<Hands>>(const std::string& name)>;

// As long as a look at a path of a tier that serves may take.
inline constexpr Nanoseconds kFirstLookLimit = seconds(10);

struct SilentPath {
  std::string path;
  std::string why;  // "stat /kv has not come back in 10 s"
};

// What was found: the paths of which nothing more is asked. Empty = none.
struct FirstLook {
  std::vector<SilentPath> silent;

  [[nodiscard]] bool is_silent(std::string_view path) const;
  // `place` is one of them, or lies in one.
  [[nodiscard]] bool is_in_silence(std::string_view place) const;
  [[nodiscard]] std::vector<std::string> answering(std::span<const std::string> paths) const;
};

// Without `make_hand` none is silent. A hand that the system refuses is told, and its path not
// asked. On `stop` those that have not answered yet are silent at once.
[[nodiscard]] FirstLook look_first(std::span<const std::string> paths, const MakeHand& make_hand,
                                   Nanoseconds limit, const Clock& clock, LogSink& log,
                                   const std::stop_token& stop = {});

// Of the disk tier as a problem, with the way out.
[[nodiscard]] std::string text_of(const SilentPath& silent);

}  // namespace terrace::tier
