// What the worker's tests share: an engine on the CPU, a faulty device, an owner and a worker.
// Threading: test thread.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "terrace/attach/attach_server.h"
#include "terrace/base/rng.h"
#include "terrace/memory/device/cpu/cpu_device.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/worker/worker.h"

namespace terrace::worker {

using testing::eventually;

inline constexpr std::uint64_t kOwner = 0xABCD;
inline constexpr std::uint32_t kNoCanary = UINT32_MAX;

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// An engine on the CPU: `layers` arrays of blocks for each group, block 0 is the null block.
class Engine {
 public:
  Engine(const std::vector<std::size_t>& piece_bytes, std::size_t layers, std::uint32_t blocks) {
    layout_.block_tokens = Tokens(32);
    for (const std::size_t piece : piece_bytes) {
      const auto id = static_cast<std::uint16_t>(layout_.groups.size() * 3);  // Ids are no places.
      layout_.groups.push_back({GroupId(id), std::vector<Bytes>(layers, Bytes(piece))});
      memory_.emplace_back(piece * layers * blocks);
      GroupRegions group;
      group.block_count = blocks;
      group.has_null_block = true;
      for (std::size_t i = 0; i < layers; ++i) {
        group.regions.push_back({memory_.back().data() + i * piece * blocks, piece, piece});
      }
      groups_.push_back(std::move(group));
    }
  }
  void fill(std::size_t group, std::uint32_t block, std::uint64_t seed) {
    Rng rng(seed);
    for_each_byte(group, block,
                  [&](std::byte& byte) { byte = static_cast<std::byte>(rng.next()); });
  }
  [[nodiscard]] std::vector<std::byte> read(std::size_t group, std::uint32_t block) {
    std::vector<std::byte> bytes;
    for_each_byte(group, block, [&](std::byte& byte) { bytes.push_back(byte); });
    return bytes;
  }
  Layout layout_;
  std::vector<GroupRegions> groups_;
  std::vector<std::vector<std::byte>> memory_;

 private:
  void for_each_byte(std::size_t group, std::uint32_t block,
                     const std::function<void(std::byte&)>& visit) {
    for (const DeviceRegion& region : groups_[group].regions) {
      for (std::uint64_t i = 0; i < region.piece_bytes; ++i) {
        visit(region.address[region.block_stride * block + i]);
      }
    }
  }
};

// Changes one bit of what passes, or fails, as told.
class FaultyDevice final : public memory::Device {
 public:
  explicit FaultyDevice(std::unique_ptr<memory::Device> inner) : inner_(std::move(inner)) {}
  std::string_view name() const override { return "faulty"; }
  const std::vector<GroupRegions>& groups() const override { return inner_->groups(); }
  bool wants_batches() const override { return takes_batches; }
  Status copy_out(std::span<memory::ShardCopy> copies) const override {
    ++calls;
    if (is_failing) return {Code::kIo, "injected"};
    const Status status = inner_->copy_out(copies);
    if (flips_out && --countdown < 0) copies[0].host[9] ^= std::byte{1};
    return status;
  }
  Status copy_in(std::span<memory::ShardCopy> copies) const override {
    ++calls;
    if (is_failing) return {Code::kIo, "injected"};
    const Status status = inner_->copy_in(copies);
    if (spills) {  // Writes one byte too far, into the next block.
      const DeviceRegion& region = groups()[copies[0].group].regions[0];
      region.address[region.block_stride * (copies[0].block + 1)] ^= std::byte{1};
    }
    if (flips_in && --countdown < 0) {
      const DeviceRegion& region = groups()[copies[0].group].regions[0];
      region.address[region.block_stride * copies[0].block] ^= std::byte{1};
    }
    return status;
  }
  bool takes_batches = false;
  bool is_failing = false;
  bool flips_out = false;
  bool flips_in = false;
  bool spills = false;
  mutable int countdown = 0;
  mutable int calls = 0;

 private:
  std::unique_ptr<memory::Device> inner_;
};

class WorkerTest : public ::testing::Test {
 protected:
  explicit WorkerTest(Engine engine = Engine({200, 72}, 5, 16)) : engine_(std::move(engine)) {}

  void start_owner(std::uint64_t owner = kOwner, std::uint32_t slots = 12) {
    owner_.reset();
    Bytes slot;
    for (const GroupLayout& group : engine_.layout_.groups)
      slot = std::max(slot, group.shard_bytes());
    geometry_ = {round_up(slot, 4_KiB), slots, 1};
    lane_.reset();
    lane_.emplace(memory::Lane::create(geometry_, false, "test").value());
    attach::AttachServer::Options options;
    options.directory = scratch_.path() + "/attach";
    options.engine_id = "engine";
    options.owner = owner;
    options.layout = engine_.layout_;
    options.geometry = geometry_;
    options.lanes = {&*lane_};
    auto started = attach::AttachServer::start(std::move(options), clock_, log_);
    ASSERT_TRUE(started.has_value()) << started.error().text();
    owner_ = std::move(*started);
  }

  void open_worker(std::shared_ptr<const memory::Device> device = nullptr, unsigned threads = 2) {
    Worker::Options options;
    options.layout = engine_.layout_;
    options.groups = engine_.groups_;
    options.engine_id = "engine";
    options.attach_directory = scratch_.path() + "/attach";
    options.device = std::move(device);
    options.threads = threads;
    auto opened = Worker::open(std::move(options), clock_, log_);
    ASSERT_TRUE(opened.has_value()) << opened.error().text();
    worker_ = std::move(*opened);
  }

  void start() {
    start_owner();
    open_worker();
    attach();
  }
  void attach() {
    ASSERT_TRUE(eventually([&] { return worker_->is_attached() && owner_->all_attached(); }))
        << worker_->problem();
  }

  static SlotRef slot(std::uint32_t index) { return {SlotIndex(index), Generation(index + 1)}; }
  static wire::Orders orders(std::uint64_t step = 1) {
    wire::Orders orders;
    orders.owner = kOwner;
    orders.step = StepId(step);
    return orders;
  }
  static wire::SaveOrder save(std::uint32_t index, std::uint32_t block, std::uint16_t group = 0) {
    return {slot(index), GroupId(group), block};
  }
  static wire::LoadOrder load(std::uint32_t index, std::uint32_t block, Checksum checksum,
                              std::uint16_t group = 0) {
    return {slot(index), GroupId(group), block, false, {checksum}};
  }

  std::vector<std::uint32_t> run_loads(const wire::Orders& orders) {
    const std::string bytes = encode(orders);
    const auto failed = worker_->run_loads(bytes_of(bytes));
    EXPECT_TRUE(failed.has_value()) << failed.error().text();
    return failed.value_or(std::vector<std::uint32_t>{9999});
  }
  void run_saves(const wire::Orders& orders) {
    const std::string bytes = encode(orders);
    EXPECT_TRUE(worker_->run_saves(bytes_of(bytes)).is_ok());
  }
  std::vector<wire::Report> reports() {
    const std::string bytes = worker_->build_report();
    auto reports = wire::decode_reports(bytes_of(bytes));
    EXPECT_TRUE(reports.has_value());
    return std::move(reports).value();
  }
  wire::Report report() {
    auto all = reports();
    EXPECT_EQ(all.size(), 1U);
    return all.empty() ? wire::Report() : all.front();
  }
  // Block `block` saved to slot `index`; its checksum.
  Checksum saved(std::uint32_t index, std::uint32_t block, std::uint16_t group = 0) {
    wire::Orders step = orders();
    step.saves = {save(index, block, group)};
    run_saves(step);
    const wire::Report done = report();
    EXPECT_EQ(done.saves.size(), 1U);
    EXPECT_TRUE(done.saves.at(0).is_filled);
    return done.saves.at(0).checksum;
  }

  Engine engine_;
  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  NullLog log_;
  memory::SegmentGeometry geometry_;
  std::optional<memory::Lane> lane_;
  std::unique_ptr<attach::AttachServer> owner_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace terrace::worker
