// A real owner and real workers in one process around a made-up engine: arrays for device memory,
// contents that follow from the sequence hash. Real threads, sockets, shared memory and files.
// Threading: one test thread.  Waits: wait_until(), up to its limit.
#pragma once

#include <poll.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/base/rng.h"
#include "terrace/base/sync_point.h"
#include "terrace/manager/block_manager.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/worker/worker.h"

namespace terrace::scenario {

class Scratch {
 public:
  Scratch() {
    std::string name = "/tmp/terrace-scenario-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Until `predicate` holds; false when 30 s were not enough.
inline bool wait_until(const std::function<bool()>& predicate) {
  const SystemClock clock;
  const Nanoseconds end = clock.now() + seconds(30);
  while (!predicate()) {
    if (clock.now() >= end) return false;
    ::poll(nullptr, 0, 1);
  }
  return true;
}

struct EngineOptions {
  std::uint16_t ranks = 1;
  std::uint64_t host_blocks = 32;
  std::uint32_t device_blocks = 64;
  std::string disk_path = {};  // Empty = none.
  std::uint64_t disk_blocks = 64;
  std::string engine_id = "engine";
  std::function<void(manager::Options&)> tune = {};
  const Clock* clock = nullptr;  // Null = the system's.
  // Called where a real engine takes its time: a run has loaded; it has computed.
  std::function<void()> pause = [] {};
};

// As a scrape reads it.
inline double problems_told(const manager::BlockManager& manager) {
  class Reader final : public MetricVisitor {
   public:
    void counter(std::string_view /*name*/, std::string_view /*labels*/,
                 std::uint64_t /*value*/) override {}
    void gauge(std::string_view name, std::string_view /*labels*/, double value) override {
      if (name == "terrace_problems") problems = value;
    }
    double problems = -1;
  } reader;
  manager.visit_metrics(reader);
  return reader.problems;
}

// What the engine saw of one request.
struct Outcome {
  std::uint64_t loaded = 0;  // Blocks that came from the cache and were not reported bad.
  std::vector<std::uint32_t> failed;
  bool is_right = true;  // Every block that was not reported bad has the right bytes.
  manager::Ledger ledger;
};

class Engine {
 public:
  static constexpr std::uint64_t kBlockTokens = 8;
  static constexpr std::uint64_t kPieceBytes = 3072;
  static constexpr std::uint64_t kPieces = 3;  // A payload of 9 KiB: no multiple of 4 KiB.

  Engine(const Scratch& scratch, EngineOptions given)
      : given_(std::move(given)),
        socket_directory_(scratch.path() + "/s"),
        clock_(given_.clock == nullptr ? system_clock_ : *given_.clock),
        log_(clock_, LogLevel::kInfo, 4096) {
    for (std::uint16_t rank = 0; rank < given_.ranks; ++rank) {
      memory_.emplace_back(kPieceBytes * kPieces * given_.device_blocks, std::byte{0});
    }
    open_owner();
    workers_.resize(given_.ranks);
    for (std::uint16_t rank = 0; rank < given_.ranks; ++rank) open_worker(rank);
  }
  ~Engine() {
    base::set_sync_point("manager.io.tick", {});
    stop();
  }

  void stop(Nanoseconds limit = seconds(5)) {
    if (manager_) manager_->close(limit);
    workers_.clear();
    manager_.reset();
  }
  // As kill -9 leaves it: nothing is flushed.
  void kill() { stop(Nanoseconds(0)); }

  void open_worker(std::uint16_t rank) {
    worker::Worker::Options options;
    options.rank = RankId(rank);
    options.layout = options_.layout;
    options.engine_id = given_.engine_id;
    options.attach_directory = socket_directory_;
    worker::GroupRegions group;
    for (std::uint64_t piece = 0; piece < kPieces; ++piece) {
      group.regions.push_back(
          {.address = memory_[rank].data() + piece * kPieceBytes * given_.device_blocks,
           .block_stride = kPieceBytes,
           .piece_bytes = kPieceBytes});
    }
    group.block_count = given_.device_blocks;
    group.has_null_block = true;
    group.null_block = 0;
    options.groups = {group};
    auto worker = worker::Worker::open(std::move(options), clock_, log_);
    if (!worker) throw std::runtime_error(worker.error().message());
    workers_[rank] = std::move(*worker);
  }
  void close_worker(std::uint16_t rank) { workers_[rank].reset(); }

  manager::BlockManager& manager() { return *manager_; }
  worker::Worker& worker(std::uint16_t rank) { return *workers_[rank]; }
  transfer::FaultBackend* fault() { return fault_; }
  // Runs `action` in the I/O thread, which owns the disk's backend.
  void in_io_thread(const std::function<void()>& action) {
    std::atomic<bool> is_done{false};
    base::set_sync_point("manager.io.tick", [&] {
      if (!is_done.load()) action();
      is_done.store(true);
    });
    const bool has_run = wait_until([&] { return is_done.load(); });
    base::set_sync_point("manager.io.tick", {});
    if (!has_run) throw std::runtime_error("the I/O thread does not turn");
  }
  [[nodiscard]] std::string logged() {
    std::string text;
    for (const LogLine& line : log_.drain()) text += line.text + "\n";
    return text;
  }

  // Steps the engine until the owner serves from every tier.
  bool wait_ready() {
    return wait_until([&] {
      step();
      const auto status = manager_->status();
      bool is_open = status.is_ready;
      for (const auto& tier : status.tiers) {
        is_open = is_open && tier.state != manager::TierState::kOpening;
      }
      return is_open;
    });
  }

  // One engine step: orders out, work, reports back. Returns the blocks reported bad.
  std::vector<std::uint32_t> step(const std::function<void()>& compute = {}) {
    std::vector<std::uint32_t> failed;
    const std::string orders = manager_->build_orders().value();
    const auto bytes = std::as_bytes(std::span(orders));
    if (orders.empty()) {
      if (compute) compute();
      return failed;
    }
    for (auto& worker : workers_) {
      if (!worker) continue;
      (void)worker->run_canary(bytes);
      const auto bad = worker->run_loads(bytes);
      if (bad) failed.insert(failed.end(), bad->begin(), bad->end());
    }
    if (compute) compute();
    std::string reports;
    for (auto& worker : workers_) {
      if (!worker) continue;
      (void)worker->run_saves(bytes);
      reports += worker->build_report();
    }
    if (!reports.empty()) (void)manager_->take_report(std::as_bytes(std::span(reports)));
    return failed;
  }

  RequestId begin(const std::vector<std::uint32_t>& tokens, const std::string& salt = "") {
    manager::RequestOptions request;
    request.tokens = tokens;
    request.prompt_tokens = Tokens(tokens.size());
    if (!salt.empty())
      request.extra_keys.push_back({.kind = ExtraKey::Kind::kSalt, .identity = salt});
    return manager_->begin_request(request).value();
  }
  // Polls until there is an answer, stepping meanwhile as an engine does.
  std::uint64_t look_up(RequestId id, std::uint64_t local_blocks = 0) {
    std::optional<std::uint64_t> blocks;
    const bool is_over = wait_until([&] {
      const auto answer =
          manager_->poll_request(id, Tokens(local_blocks * kBlockTokens), Tokens(1U << 30U));
      if (answer && answer->is_ready) blocks = answer->external.value() / kBlockTokens;
      if (!blocks) step();
      return blocks.has_value();
    });
    if (!is_over) throw std::runtime_error("a look-up did not end");
    return *blocks;
  }

  // A whole request: what is offered is loaded, the rest computed, everything saved, all of it
  // compared.
  Outcome run(const std::vector<std::uint32_t>& tokens, const std::string& salt = "") {
    Outcome outcome;
    const RequestId id = begin(tokens, salt);
    const auto hashes = hash(tokens, salt);
    const std::uint64_t offered = look_up(id);
    given_.pause();
    std::vector<std::uint32_t> table(hashes.size());
    for (auto& block : table) block = take_device_block();
    const std::span<const std::uint32_t> tables[] = {table};
    (void)manager_->accept_load(id, Tokens(0), Tokens(offered * kBlockTokens), tables);
    advance(id, hashes.size(), table);
    outcome.failed = step([&] {
      for (std::size_t i = offered; i < hashes.size(); ++i) compute(hashes[i], table[i]);
    });
    for (std::size_t i = 0; i < hashes.size(); ++i) {
      const bool is_bad = std::ranges::find(outcome.failed, table[i]) != outcome.failed.end();
      if (!is_bad && !has_content(hashes[i], table[i])) outcome.is_right = false;
      if (!is_bad && i < offered) ++outcome.loaded;
    }
    if (!outcome.failed.empty()) {  // As the engine does: compute what was bad, offer it again.
      for (std::size_t i = 0; i < hashes.size(); ++i) compute(hashes[i], table[i]);
      advance(id, hashes.size(), table);
      step();
    }
    given_.pause();
    outcome.ledger = manager_->end_request(id).value();
    return outcome;
  }
  void advance(RequestId id, std::uint64_t blocks, const std::vector<std::uint32_t>& table) {
    manager::Progress progress;
    progress.request = id;
    progress.computed = Tokens(blocks * kBlockTokens);
    progress.block_tables = {table};
    (void)manager_->advance_request(progress);
  }

  [[nodiscard]] static std::vector<SequenceHash> hash(const std::vector<std::uint32_t>& tokens,
                                                      const std::string& salt = "") {
    std::vector<ExtraKey> keys;
    if (!salt.empty()) keys.push_back({.kind = ExtraKey::Kind::kSalt, .identity = salt});
    SequenceChain chain(Tokens(kBlockTokens), keys);
    chain.append(tokens);
    return {chain.hashes().begin(), chain.hashes().end()};
  }
  void compute(const SequenceHash& hash, std::uint32_t device_block) {
    for (std::uint16_t rank = 0; rank < given_.ranks; ++rank) {
      for (std::uint64_t piece = 0; piece < kPieces; ++piece) {
        const std::string bytes = content(hash, rank, piece);
        std::memcpy(place(rank, piece, device_block), bytes.data(), bytes.size());
      }
    }
  }
  [[nodiscard]] bool has_content(const SequenceHash& hash, std::uint32_t device_block) {
    for (std::uint16_t rank = 0; rank < given_.ranks; ++rank) {
      for (std::uint64_t piece = 0; piece < kPieces; ++piece) {
        const std::string bytes = content(hash, rank, piece);
        if (std::memcmp(place(rank, piece, device_block), bytes.data(), bytes.size()) != 0)
          return false;
      }
    }
    return true;
  }
  [[nodiscard]] static std::vector<std::uint32_t> make_tokens(std::uint64_t blocks,
                                                              std::uint32_t seed) {
    std::vector<std::uint32_t> tokens(blocks * kBlockTokens);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = seed * 65'537U + static_cast<std::uint32_t>(i);
    }
    return tokens;
  }
  std::uint32_t take_device_block() {
    next_block_ = next_block_ % (given_.device_blocks - 1) + 1;  // 0 is the null block.
    return next_block_;
  }
  [[nodiscard]] std::uint64_t disk_blocks_stored() {
    for (const auto& tier : manager_->status().tiers) {
      if (tier.tier == Tier::kDisk) {
        return tier.slots[static_cast<std::size_t>(catalog::SlotState::kSealed)];
      }
    }
    return 0;
  }
  // Everything queued for disk is there. The canary's block counts as one.
  bool wait_on_disk(std::uint64_t blocks) {
    return wait_until([&] { return disk_blocks_stored() >= blocks; });
  }
  [[nodiscard]] std::span<std::byte> device(std::uint16_t rank) { return memory_[rank]; }

 private:
  void open_owner() {
    options_.layout.block_tokens = Tokens(kBlockTokens);
    options_.layout.ranks = given_.ranks;
    GroupLayout group;
    group.piece_bytes.assign(kPieces, Bytes(kPieceBytes));
    options_.layout.groups = {group};
    options_.fingerprint.content = {{"model", "made-up"}};
    options_.fingerprint.layout = {{"block_tokens", std::to_string(kBlockTokens)}};
    options_.engine_id = given_.engine_id;
    options_.attach_directory = socket_directory_;
    options_.host.blocks = given_.host_blocks;
    options_.host.huge_pages = false;
    options_.offload_step_bytes = 1_GiB;
    options_.has_planner = false;  // A test's engine computes at no cost at all.
    if (!given_.disk_path.empty()) {
      options_.disk.paths = {given_.disk_path};
      options_.disk.blocks = given_.disk_blocks;
      options_.disk.decorate = [this](std::unique_ptr<transfer::Backend> inner) {
        auto fault = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
        fault_ = fault.get();
        return fault;
      };
    }
    if (given_.tune) given_.tune(options_);
    auto manager = manager::BlockManager::open(options_, clock_, log_);
    if (!manager) throw std::runtime_error(manager.error().message());
    manager_ = std::move(*manager);
  }
  static std::string content(const SequenceHash& hash, std::uint16_t rank, std::uint64_t piece) {
    Rng rng(hash.high + hash.low * 31 + rank * 7ULL + piece);
    std::string bytes(kPieceBytes, '\0');
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      const std::uint64_t word = rng.next();
      std::memcpy(bytes.data() + at, &word, 8);
    }
    return bytes;
  }
  std::byte* place(std::uint16_t rank, std::uint64_t piece, std::uint32_t device_block) {
    return memory_[rank].data() + (piece * given_.device_blocks + device_block) * kPieceBytes;
  }

  const EngineOptions given_;
  const std::string socket_directory_;
  const SystemClock system_clock_;
  const Clock& clock_;
  RingLog log_;
  manager::Options options_;
  std::vector<std::vector<std::byte>> memory_;  // [rank]
  transfer::FaultBackend* fault_ = nullptr;     // Belongs to the disk tier.
  std::unique_ptr<manager::BlockManager> manager_;
  std::vector<std::unique_ptr<worker::Worker>> workers_;
  std::uint32_t next_block_ = 0;
};

}  // namespace terrace::scenario
