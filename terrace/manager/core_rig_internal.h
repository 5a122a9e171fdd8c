// Test support: the core with a made-up engine around it: arrays for device memory, ranks that obey
// orders, a disk in memory. Virtual time, no threads. Nothing of it is part of the product.
// Threading: one thread.  Waits: never.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/checksum.h"
#include "terrace/manager/core_disk_rig_internal.h"
#include "terrace/manager/io_driver_internal.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/memory_object_store.h"

namespace terrace::manager::rig {

inline constexpr std::uint64_t kBlockTokens = 4;
inline constexpr std::uint64_t kPieceBytes = 96;
inline constexpr std::uint64_t kPieces = 2;

class LastLines final : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) override {
    if (text.size() > 100'000) text.clear();
    text.append(to_string(level)).append(" ").append(line).append("\n");
  }
  std::string text;
};

struct RigOptions {
  std::uint16_t ranks = 1;
  std::uint64_t host_blocks = 16;
  std::uint32_t device_blocks = 64;
  bool has_disk = false;
  bool is_disk_opening = false;  // For ever.
  // A shared store, which several rigs may open as several nodes would.
  std::shared_ptr<testing::MemoryPlace> store{};
  std::uint32_t pack_blocks = 4;
  bool is_store_late = false;  // The test opens it.
  std::function<void(tier::ObjectTier::Options&)> tune_objects{};
  bool opens = true;  // Attach all ranks and let the canary pass.
  std::function<void(Options&)> tune{};
};

// One rank's device memory and its obedience to orders.
struct FakeRank {
  std::vector<std::string> device;  // [block], payload bytes
  Epoch epoch;
  wire::CanaryResult canary = wire::CanaryResult::kPassed;
};

class Rig {
 public:
  explicit Rig(const RigOptions& given = {})
      : options(make_options(given)),
        disk(clock),
        shared(options, kOwner, counters, clock),
        driver(shared, clock, log),
        ranks(given.ranks) {
    for (FakeRank& rank : ranks) {
      rank.device.assign(given.device_blocks, std::string(kPieceBytes * kPieces, '\0'));
    }
    auto host = tier::HostTier::create(host_options());
    if (!host) throw std::runtime_error(host.error().message());
    core.open_host(std::move(*host));
    if (given.has_disk) {
      core.open_lower(disk);
      driver.set_lower(disk);
    } else if (!given.is_disk_opening) {
      core.close_lower("", false);
    }
    if (given.store != nullptr && !given.is_store_late) open_store(given);
    if (given.opens) open();
  }

  static constexpr std::uint64_t kOwner = 77;
  const Options options;
  testing::FakeClock clock;
  LastLines log;
  Counters counters;
  MemoryDisk disk;
  Shared shared;
  Core& core = shared.core;  // One thread: the lock has nobody to guard against.
  IoDriver driver;
  std::unique_ptr<tier::ObjectTier> objects;
  std::vector<FakeRank> ranks;
  std::uint64_t told_by_board = 0;  // Polls.

  void open_store(const RigOptions& given) {
    tier::ObjectTier::Options wanted;
    wanted.layout = options.layout;
    wanted.fingerprint.content = {{"model", "a"}};
    wanted.pack_blocks = given.pack_blocks;
    wanted.queue.seed = 1;
    if (given.tune_objects) given.tune_objects(wanted);
    auto store = std::make_unique<testing::MemoryObjectStore>(given.store, 16);
    auto opened = tier::ObjectTier::create(std::move(wanted), std::move(store), clock, log);
    if (!opened) throw std::runtime_error(opened.error().message());
    objects = *std::move(opened);
    core.open_objects(*objects);
    driver.set_objects(*objects);
  }
  void attach(std::uint16_t rank) {
    ranks[rank].epoch = Epoch(++last_epoch_);
    core.on_attach({.change = attach::AttachChange::kAttached,
                    .rank = RankId(rank),
                    .epoch = ranks[rank].epoch,
                    .detail = {}},
                   clock.now());
  }
  void kill(std::uint16_t rank) {
    core.on_attach({.change = attach::AttachChange::kDied,
                    .rank = RankId(rank),
                    .epoch = ranks[rank].epoch,
                    .detail = {}},
                   clock.now());
    ranks[rank].epoch = Epoch(0);
  }
  [[nodiscard]] std::uint16_t rank_count() const {
    return static_cast<std::uint16_t>(ranks.size());
  }
  void open() {
    for (std::uint16_t rank = 0; rank < rank_count(); ++rank) attach(rank);
    step();
    settle();
  }
  // Lets the I/O side work off what is due now.
  void settle() {
    for (int i = 0; i < 100 && driver.tick(); ++i) {
    }
    driver.tick();
  }

  // ---- Engine.
  RequestId begin(std::span<const std::uint32_t> tokens, bool can_load = true) {
    auto request = std::make_unique<Request>(RequestId(++last_request_), Tokens(kBlockTokens),
                                             std::vector<ExtraKey>{});
    request->can_load = can_load;
    request->chain.append(tokens);
    request->prompt_blocks = tokens.size() / kBlockTokens;
    request->ledger.prompt = Tokens(tokens.size());
    if (options.has_events) request->tokens.assign(tokens.begin(), tokens.end());
    return core.add_request(std::move(request), clock.now()).id;
  }
  MatchAnswer poll(RequestId id, std::uint64_t local_blocks = 0, std::uint64_t limit = 1U << 30U) {
    const Tokens local(local_blocks * kBlockTokens);
    const auto told =
        shared.answers.read(id, local, Tokens(limit), Tokens(kBlockTokens), clock.now());
    // Every second time the core is asked as well, and has to agree.
    if (told && ++told_by_board % 2 == 0) return *told;
    const MatchAnswer answer = core.poll(*core.find(id), local, Tokens(limit), clock.now());
    if (told && (told->is_ready != answer.is_ready || told->external != answer.external)) {
      throw std::runtime_error("the board and the core disagree");
    }
    return answer;
  }
  // Blocks offered, or nothing while it is not ready.
  std::optional<std::uint64_t> offered(RequestId id, std::uint64_t local_blocks = 0) {
    const MatchAnswer answer = poll(id, local_blocks);
    if (!answer.is_ready) return std::nullopt;
    return answer.external.value() / kBlockTokens;
  }
  // Polls until ready, letting the disk work.
  std::uint64_t look_up(RequestId id, std::uint64_t local_blocks = 0) {
    for (int i = 0; i < 1000; ++i) {
      if (const auto blocks = offered(id, local_blocks)) return *blocks;
      settle();
      clock.advance(milliseconds(1));
    }
    throw std::runtime_error("a look-up did not end");
  }
  using Tables = std::vector<std::span<const std::uint32_t>>;  // [group]
  Status accept(RequestId id, std::uint64_t local, std::uint64_t external,
                std::span<const std::uint32_t> table) {
    return accept_all(id, local, external, Tables{table});
  }
  Status accept_all(RequestId id, std::uint64_t local, std::uint64_t external,
                    const Tables& tables) {
    return core.accept(*core.find(id), Tokens(local * kBlockTokens),
                       Tokens(external * kBlockTokens), tables, clock.now());
  }
  void advance(RequestId id, std::uint64_t computed_blocks, std::span<const std::uint32_t> table) {
    advance_all(id, computed_blocks, Tables{table});
  }
  void advance_all(RequestId id, std::uint64_t computed_blocks, const Tables& tables) {
    Progress progress;
    progress.request = id;
    progress.computed = Tokens(computed_blocks * kBlockTokens);
    progress.block_tables = tables;
    core.advance(*core.find(id), progress);
  }
  std::optional<wire::Orders> build() { return core.build_orders(clock.now()); }

  // What a rank answers to orders, after doing as told: to all of them, as worker::Worker does, if
  // there is nothing to be done as well.
  wire::Report obey(std::uint16_t rank, const wire::Orders& orders) {
    wire::Report report;
    report.owner = kOwner;
    report.epoch = ranks[rank].epoch;
    report.rank = RankId(rank);
    report.step = orders.step;
    if (orders.canary_slot != UINT32_MAX) report.canary = ranks[rank].canary;
    for (const wire::LoadOrder& load : orders.loads) {
      const auto payload = shard(load.slot.index, rank);
      if (load.is_void || checksum_of(payload) != load.checksums[rank]) {
        report.failures.push_back({load.slot, load.group, load.device_block});
        continue;
      }
      std::memcpy(ranks[rank].device[load.device_block].data(), payload.data(), payload.size());
      report.load_bytes += payload.size();
      report.load_ns += 1000;
    }
    for (const wire::SaveOrder& save : orders.saves) {
      const auto payload = shard(save.slot.index, rank);
      std::memcpy(payload.data(), ranks[rank].device[save.device_block].data(), payload.size());
      report.saves.push_back({save.slot, save.group, true, checksum_of(payload)});
      report.save_bytes += payload.size();
    }
    return report;
  }
  // A whole engine step: orders, work, reports of all living ranks.
  std::optional<wire::Orders> step() {
    const auto orders = build();
    if (!orders) return orders;
    for (std::uint16_t rank = 0; rank < rank_count(); ++rank) {
      if (ranks[rank].epoch == Epoch(0)) continue;
      (void)core.take_report(obey(rank, *orders), clock.now());
    }
    return orders;
  }
  Ledger end(RequestId id) { return core.end_request(*core.find(id), clock.now()); }

  // ---- Content: what the engine computes for a block follows from its chain alone. Numbers of
  // float32 from 1 to 2, of either sign, so that two versions can be compared.
  static std::string content(const SequenceHash& hash, std::uint16_t rank, GroupId group = {}) {
    Rng rng(hash.high ^ (hash.low * 3) ^ (rank + 1ULL) ^ (std::uint64_t{group.value()} << 32U));
    std::string bytes(kPieceBytes * kPieces, '\0');
    for (std::size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      const std::uint64_t words = (rng.next() & 0x807FFFFF'807FFFFF) | 0x3F800000'3F800000;
      std::memcpy(bytes.data() + at, &words, 8);
    }
    return bytes;
  }
  std::vector<SequenceHash> hashes(RequestId id) {
    const auto chain = core.find(id)->chain.hashes();
    return {chain.begin(), chain.end()};
  }
  void compute(RequestId id, std::uint64_t block, std::uint32_t device_block, GroupId group = {}) {
    const SequenceHash hash = core.find(id)->chain.hashes()[block];
    for (std::uint16_t rank = 0; rank < rank_count(); ++rank) {
      ranks[rank].device[device_block] = content(hash, rank, group);
    }
  }
  [[nodiscard]] bool is_right(RequestId id, std::uint64_t block, std::uint32_t device_block,
                              GroupId group = {}) {
    const SequenceHash hash = core.find(id)->chain.hashes()[block];
    for (std::uint16_t rank = 0; rank < rank_count(); ++rank) {
      if (ranks[rank].device[device_block] != content(hash, rank, group)) return false;
    }
    return true;
  }
  std::span<std::byte> shard(SlotIndex slot, std::uint16_t rank) {
    return core.context().host->shard(slot, RankId(rank)).first(kPieceBytes * kPieces);
  }
  [[nodiscard]] bool in_host(const SequenceHash& hash, GroupId group = {}) {
    return core.context().pool().contains(core.context().key_of(group, hash));
  }
  [[nodiscard]] std::uint32_t count(catalog::SlotState state) {
    return core.context().pool().count(state);
  }
  // A request that computes everything itself, is saved and ends.
  Ledger run_cold(std::span<const std::uint32_t> tokens, std::uint32_t first_device_block = 0) {
    const RequestId id = begin(tokens);
    const std::uint64_t blocks = tokens.size() / kBlockTokens;
    (void)look_up(id);
    const auto table = make_table(blocks, first_device_block);
    (void)accept(id, 0, 0, table);
    for (std::uint64_t block = 0; block < blocks; ++block) compute(id, block, table[block]);
    advance(id, blocks, table);
    step();
    const Ledger ledger = end(id);
    settle();
    return ledger;
  }
  static std::vector<std::uint32_t> make_table(std::uint64_t blocks, std::uint32_t first = 0) {
    std::vector<std::uint32_t> table(blocks);
    for (std::uint64_t i = 0; i < blocks; ++i) table[i] = first + static_cast<std::uint32_t>(i);
    return table;
  }
  static std::vector<std::uint32_t> make_tokens(std::uint64_t blocks, std::uint32_t seed) {
    std::vector<std::uint32_t> tokens(blocks * kBlockTokens);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = seed * 100'003U + static_cast<std::uint32_t>(i);
    }
    return tokens;
  }
  static std::uint64_t miss(const Counters& counters, MissReason reason) {
    return counters.miss_blocks[static_cast<std::size_t>(reason)].value();
  }

 private:
  static Options make_options(const RigOptions& given) {
    Options options;
    options.layout.block_tokens = Tokens(kBlockTokens);
    options.layout.ranks = given.ranks;
    GroupLayout group;
    group.piece_bytes.assign(kPieces, Bytes(kPieceBytes));
    options.layout.groups = {group};
    options.host.blocks = given.host_blocks;
    options.host.huge_pages = false;
    options.offload_step_bytes = 1_GiB;
    if (given.has_disk) options.disk.paths = {"memory"};
    if (given.store != nullptr) {  // The rig opens it itself.
      options.object.open_store = [](const Clock&, LogSink&) {
        return fail(Code::kInternal, "a rig's own");
      };
    }
    if (given.tune) given.tune(options);
    return options;
  }
  [[nodiscard]] tier::HostTier::Options host_options() const {
    tier::HostTier::Options host;
    host.layout = options.layout;
    host.blocks = options.host.blocks;
    host.huge_pages = false;
    host.eviction = options.host.eviction;
    host.returns = core.returns();
    return host;
  }

  std::uint64_t last_epoch_ = 0;
  std::uint64_t last_request_ = 0;
};

}  // namespace terrace::manager::rig
