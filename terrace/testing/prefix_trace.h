// Reads a workload trace of prompts as chains of numbered blocks (tests/data/mooncake/README.md):
// each request is two LEB128 numbers, the deepest block it shares with what came before (number +
// 1, 0 = none) and how many new blocks follow. Blocks are numbered in order of appearance.
// Threading: thread-compatible.  Waits: for file reads.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "terrace/trace/workload.h"

namespace terrace::testing {

class PrefixTrace {
 public:
  // Nothing if the file is missing or malformed.
  static std::optional<PrefixTrace> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return std::nullopt;
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    PrefixTrace trace;
    std::size_t at = 0;
    while (at < bytes.size()) {
      const auto shared = number(bytes, at);
      const auto fresh = number(bytes, at);
      if (!shared || !fresh || *shared > trace.parents_.size()) return std::nullopt;
      std::uint64_t tip = *shared;
      for (std::uint64_t i = 0; i < *fresh; ++i) {
        trace.parents_.push_back(static_cast<std::uint32_t>(tip));
        tip = trace.parents_.size();
      }
      trace.tips_.push_back(static_cast<std::uint32_t>(tip));
    }
    return trace;
  }

  [[nodiscard]] std::size_t requests() const { return tips_.size(); }
  [[nodiscard]] std::size_t unique_blocks() const { return parents_.size(); }
  // Block numbers of one request, in chain order.
  [[nodiscard]] std::vector<std::uint32_t> blocks(std::size_t request) const {
    std::vector<std::uint32_t> reversed;
    for (std::uint32_t tip = tips_[request]; tip != 0; tip = parents_[tip - 1]) {
      reversed.push_back(tip - 1);
    }
    return {reversed.rbegin(), reversed.rend()};
  }

  // The same for a replay; requests come evenly over `span`.
  [[nodiscard]] trace::Workload workload(Nanoseconds span = Nanoseconds(0)) const {
    trace::Workload workload;
    for (const std::uint32_t parent : parents_) (void)workload.add_block(parent);
    for (std::size_t i = 0; i < tips_.size(); ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(tips_.size());
      workload.add_request(
          {Nanoseconds(static_cast<std::int64_t>(static_cast<double>(span.value()) * share)),
           tips_[i], static_cast<std::uint32_t>(blocks(i).size())});
    }
    return workload;
  }

 private:
  static std::optional<std::uint64_t> number(const std::string& bytes, std::size_t& at) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 35 && at < bytes.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[at++]);
      value |= static_cast<std::uint64_t>(byte & 127U) << shift;
      if (byte < 128) return value;
    }
    return std::nullopt;
  }

  std::vector<std::uint32_t> parents_;  // Parent's number + 1, 0 = none.
  std::vector<std::uint32_t> tips_;     // Per request, its deepest block's number + 1.
};

}  // namespace terrace::testing
