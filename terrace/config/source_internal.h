// What the readers of the single sources hand to load(): named scalars with where they came from,
// and the problems they met. Private to config/.
// Threading: immutable values.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/config/load.h"
#include "terrace/config/value.h"

namespace terrace::config {

struct Given {
  std::string name;  // As in the table, if it is known.
  Scalar scalar;
  Origin origin;
  bool is_alias = false;
};

// One line per problem, bounded, so that a hostile source cannot fill memory.
class Problems {
 public:
  void add(std::string line) {
    if (lines_.size() < kMost) {
      lines_.push_back(std::move(line));
    } else {
      ++more_;
    }
  }
  [[nodiscard]] bool is_empty() const { return lines_.empty(); }
  [[nodiscard]] std::string text() const;

 private:
  static constexpr std::size_t kMost = 16;
  std::vector<std::string> lines_;
  std::size_t more_ = 0;
};

inline constexpr Bytes kMostSourceBytes = 1_MiB;
inline constexpr std::size_t kMostGiven = 4096;
inline constexpr std::size_t kMostDepth = 8;

// The engine's JSON object, flattened.
void read_json(const Sources& sources, std::vector<Given>& given, Problems& problems);
// The TOML text of the file `path`, flattened; origins are "path:line".
void read_toml(std::string_view text, const std::string& path, std::vector<Given>& given,
               Problems& problems);
// TERRACE_* and KVBM's aliases; unknown KVBM names go to `warnings`, ineffective ones to `notes`.
void read_environment(const Sources& sources, std::vector<Given>& given, Problems& problems,
                      std::vector<std::string>& warnings, std::vector<std::string>& notes);

// "; the nearest known is X", or a pointer to the list.
[[nodiscard]] std::string nearest_setting_hint(std::string_view name);

// Which tiers together, derived values, directories, what is not built. After the merge.
void apply_rules(const Sources& sources, Loaded& loaded, Problems& problems);

}  // namespace terrace::config
