// A disk tier in a scratch directory, for tests: blocks made from numbers, written and read with
// one call each. Tests only. Threading: thread-compatible.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/base/rng.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/small_disk.h"
#include "terrace/tier/disk/disk_tier.h"

namespace terrace::tier::disk {

// Where syncs are quick: tests of order and content need no medium.
[[nodiscard]] inline std::string quick_directory() {
  const std::string memory = "/dev/shm";
  return ::access(memory.c_str(), W_OK) == 0 ? memory
                                             : std::filesystem::temp_directory_path().string();
}

class ScratchDirectory {
 public:
  explicit ScratchDirectory(const std::string& parent = quick_directory())
      : path_(parent + "/terrace-disk-" + std::to_string(::getpid()) + "-" +
              std::to_string(random_u64())) {
    std::filesystem::create_directories(path_);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Everything below `path`, with its bytes: equal before and after = nothing was touched.
[[nodiscard]] inline std::map<std::string, std::string> tree(const std::string& path) {
  std::map<std::string, std::string> all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    std::string content = "(directory)";
    if (entry.is_regular_file()) {
      std::ifstream file(entry.path(), std::ios::binary);
      content.assign(std::istreambuf_iterator<char>(file), {});
    }
    all[entry.path().string()] = content;
  }
  return all;
}

// One bit of a file.
inline void flip_bit(const std::string& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 1));
  file.flush();
  if (!file.good()) throw std::runtime_error("no byte to flip in " + path);
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

using testing::SmallDisk;

// One block's shards in page-aligned memory.
class BlockMemory {
 public:
  BlockMemory(std::size_t ranks, std::size_t payload_bytes)
      : padded_((payload_bytes + 4095) / 4096 * 4096),
        memory_(static_cast<std::byte*>(std::aligned_alloc(4096, ranks * padded_))) {
    std::memset(memory_.get(), 0, ranks * padded_);
    for (std::size_t i = 0; i < ranks; ++i) {
      shards_.push_back({memory_.get() + i * padded_, payload_bytes, padded_});
    }
  }
  [[nodiscard]] std::span<const ShardMemory> shards() const { return shards_; }
  [[nodiscard]] std::vector<Checksum> checksums() const {
    std::vector<Checksum> sums;
    sums.reserve(shards_.size());
    for (const ShardMemory& shard : shards_) {
      sums.push_back(checksum_of({shard.payload, shard.payload_bytes}));
    }
    return sums;
  }
  void fill(std::uint64_t seed) {
    for (std::size_t rank = 0; rank < shards_.size(); ++rank) {
      Rng rng(seed * 64 + rank);
      for (std::size_t at = 0; at < shards_[rank].payload_bytes; at += 8) {
        const std::uint64_t word = rng.next();
        std::memcpy(shards_[rank].payload + at, &word,
                    std::min<std::size_t>(8, shards_[rank].payload_bytes - at));
      }
    }
  }
  [[nodiscard]] bool equals(const BlockMemory& other) const {
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      if (std::memcmp(shards_[i].payload, other.shards_[i].payload, shards_[i].payload_bytes) !=
          0) {
        return false;
      }
    }
    return true;
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::size_t padded_;
  std::unique_ptr<std::byte, Free> memory_;
  std::vector<ShardMemory> shards_;
};

[[nodiscard]] inline SequenceHash hash_of(std::uint64_t number) {
  Rng rng(number ^ 0xD15CULL);
  return {rng.next(), rng.next()};
}

class CellReader final : public MetricVisitor {
 public:
  void counter(std::string_view name, std::string_view labels, std::uint64_t value) override {
    values_[key(name, labels)] = static_cast<double>(value);
  }
  void gauge(std::string_view name, std::string_view labels, double value) override {
    values_[key(name, labels)] = value;
  }
  [[nodiscard]] double value(const std::string& name) const { return values_.at(name); }

 private:
  static std::string key(std::string_view name, std::string_view labels) {
    std::string text(name);
    if (!labels.empty()) text.append("{").append(labels).append("}");
    return text;
  }
  std::map<std::string, double> values_;
};

class Rig {
 public:
  struct Shape {
    std::uint16_t ranks = 1;
    std::vector<std::uint64_t> payload_bytes{8192};  // [group]
  };
  Rig() : Rig(Shape()) {}
  explicit Rig(Shape shape, const std::string& parent = quick_directory())
      : shape_(std::move(shape)), scratch_(parent) {
    options_.layout.block_tokens = Tokens(16);
    options_.layout.ranks = shape_.ranks;
    for (const std::uint64_t payload : shape_.payload_bytes) {
      const auto group = static_cast<std::uint16_t>(options_.layout.groups.size());
      options_.layout.groups.push_back({GroupId(group), {Bytes(payload)}});
    }
    options_.blocks = 16;
    options_.io.depth = 16;
    options_.paths = {scratch_.path()};
    set_model("model-a");
  }

  // ---- Before open().
  DiskTier::Options& options() { return options_; }
  // For the tier; the rig's own waiting goes by the system's.
  void use_clock(const Clock& clock) { tier_clock_ = &clock; }
  void set_model(const std::string& name) {
    options_.fingerprint.content = {{"model", name}};
    options_.fingerprint.layout = {{"ranks", std::to_string(shape_.ranks)},
                                   {"bytes", std::to_string(shape_.payload_bytes[0])}};
  }
  [[nodiscard]] const std::string& path() const { return scratch_.path(); }
  [[nodiscard]] std::string owner(int number = 0) const {
    return path() + "/terrace-0" + std::to_string(number);
  }

  [[nodiscard]] Status open() {
    auto opened = DiskTier::open(options_, tier_clock_ != nullptr ? *tier_clock_ : clock_, log_);
    if (!opened) return opened.error();
    tier_ = *std::move(opened);
    return {};
  }
  void close() { tier_.reset(); }
  [[nodiscard]] Status reopen() {
    close();
    return open();
  }

  // ---- While open.
  DiskTier& tier() { return *tier_; }
  [[nodiscard]] BlockMemory block(std::uint64_t seed, std::size_t group = 0) const {
    BlockMemory memory(shape_.ranks, shape_.payload_bytes[group]);
    memory.fill(seed);
    return memory;
  }
  [[nodiscard]] BlockMemory blank(std::size_t group = 0) const {
    return BlockMemory(shape_.ranks, shape_.payload_bytes[group]);
  }
  // Waits for the completion of `token`; others are kept for their own await().
  [[nodiscard]] DiskDone await(std::uint64_t token) {
    const Nanoseconds limit = clock_.now() + seconds(20);
    std::vector<DiskDone> done;
    while (!done_.contains(token) && clock_.now() < limit) {
      tier_->wait(milliseconds(100));
      done.clear();
      tier_->poll(done);
      for (DiskDone& item : done) done_[item.token] = std::move(item);
    }
    const auto found = done_.find(token);
    if (found == done_.end()) return {token, false, {Code::kInternal, "no completion came"}, {}, 0};
    DiskDone result = std::move(found->second);
    done_.erase(found);
    return result;
  }
  // `memory` stays until its completion.
  [[nodiscard]] Status begin_write(std::uint64_t token, std::uint64_t number,
                                   const BlockMemory& memory) {
    return tier_->begin_write(token, GroupId(0), hash_of(number), number * 3, memory.shards(),
                              memory.checksums());
  }
  // Turns the tier until `is_so`; false when 20 s were not enough.
  [[nodiscard]] bool step_until(const std::function<bool()>& is_so) {
    const Nanoseconds limit = clock_.now() + seconds(20);
    std::vector<DiskDone> done;
    while (!is_so()) {
      if (clock_.now() >= limit) return false;
      tier_->wait(milliseconds(10));
      done.clear();
      tier_->poll(done);
      for (DiskDone& item : done) done_[item.token] = std::move(item);
    }
    return true;
  }
  [[nodiscard]] Status write(std::uint64_t number, std::size_t group = 0) {
    const BlockMemory memory = block(number, group);
    const std::uint64_t token = next_token_++;
    const Status status =
        tier_->begin_write(token, GroupId(static_cast<std::uint16_t>(group)), hash_of(number),
                           number * 3, memory.shards(), memory.checksums());
    return status.is_ok() ? await(token).status : status;
  }
  // ok = the right bytes came; kInternal = wrong bytes came as right.
  [[nodiscard]] Status read(std::uint64_t number, std::size_t group = 0) {
    const BlockMemory memory = blank(group);
    const std::uint64_t token = next_token_++;
    Status status =
        tier_->begin_read(token, GroupId(static_cast<std::uint16_t>(group)), hash_of(number),
                          memory.shards(), transfer::IoClass::kTtftRead, kNoDeadline);
    if (!status.is_ok()) return status;
    DiskDone done = await(token);
    if (!done.status.is_ok()) return done.status;
    const BlockMemory wanted = block(number, group);
    if (!memory.equals(wanted) || done.checksums != wanted.checksums() ||
        done.alias != number * 3) {
      return {Code::kInternal, "wrong bytes were delivered as right"};
    }
    return {};
  }
  [[nodiscard]] bool has(std::uint64_t number, std::size_t group = 0) const {
    return tier_->contains(GroupId(static_cast<std::uint16_t>(group)), hash_of(number));
  }
  // Until the slot files have their blocks and nothing is under way.
  void settle() {
    const Nanoseconds limit = clock_.now() + seconds(20);
    std::vector<DiskDone> done;
    while ((!tier_->is_allocated() || !tier_->is_idle()) && clock_.now() < limit) {
      tier_->wait(milliseconds(20));
      tier_->poll(done);
    }
    for (DiskDone& item : done) done_[item.token] = std::move(item);
  }
  [[nodiscard]] double metric(const std::string& name) const {
    CellReader cells;
    tier_->visit_metrics(cells);
    return cells.value(name);
  }
  [[nodiscard]] std::string log() const { return log_.text(); }
  [[nodiscard]] const testing::MemoryLog& log_lines() const { return log_; }
  [[nodiscard]] const Clock& clock() const { return clock_; }

 private:
  Shape shape_;
  ScratchDirectory scratch_;
  SystemClock clock_;
  const Clock* tier_clock_ = nullptr;
  testing::MemoryLog log_;
  DiskTier::Options options_;
  std::unique_ptr<DiskTier> tier_;
  std::uint64_t next_token_ = 1;
  std::map<std::uint64_t, DiskDone> done_;
};

}  // namespace terrace::tier::disk
