// An owner with a host and a disk tier for one rank of one group, opened by the C interface alone.
// Threading: immutable once made; what `options()` gives borrows from it.
#pragma once

#include <terrace/terrace.h>

#include <cstdint>
#include <string>

namespace guest {

class Guest {
 public:
  // All its files lie below `directory`, which exists.
  explicit Guest(const std::string& directory)
      : settings_(R"({"host.size":"32MiB","disk.size":"64MiB","disk.paths":[")" + directory +
                  R"("],"attach.directory":")" + directory + R"(/attach"})") {}
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;
  ~Guest() = default;

  [[nodiscard]] terrace_owner_options options() const {
    terrace_owner_options options{};
    options.struct_size = sizeof options;
    options.block_tokens = kBlockTokens;
    options.rank_count = 1;
    options.group_count = 1;
    options.groups = &layout_;
    options.engine_id = kEngine;
    options.settings_json = settings_.c_str();
    options.fingerprint = "content.model=x\n";
    options.can_store = options.can_load = 1;
    return options;
  }
  [[nodiscard]] const char* settings() const { return settings_.c_str(); }

  static constexpr std::uint32_t kBlockTokens = 16;
  static constexpr std::uint64_t kBlockBytes = 4096;
  static constexpr const char* kEngine = "guest";

 private:
  const std::string settings_;
  const std::uint64_t pieces_[1] = {kBlockBytes};
  const terrace_group_layout layout_ = {sizeof layout_, 1, pieces_, 0, 0, 0};
};

}  // namespace guest
