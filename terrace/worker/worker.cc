#include "terrace/worker/worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "terrace/attach/attach_client.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/metric.h"
#include "terrace/base/mutex.h"
#include "terrace/base/open_calls.h"
#include "terrace/base/sync_point.h"
#include "terrace/memory/device/cpu/cpu_device.h"
#include "terrace/worker/canary.h"
#include "terrace/worker/copy_pool.h"

namespace terrace::worker {
namespace {

// Below this one thread is as fast: waking another one takes about 50 µs, 4 MiB about 500 µs.
constexpr std::uint64_t kShareBytes = std::uint64_t{4} << 20U;
// Steps that nobody fetched a report of; an engine fetches one a step.
constexpr std::size_t kMaxReports = 1024;
constexpr Nanoseconds kLongestClose = seconds(3600);
constexpr Nanoseconds kDestroyLimit = seconds(10);

using AttachmentPtr = std::shared_ptr<const attach::Attachment>;

// One order that passed all checks, and what became of it.
struct Copy {
  std::size_t order = 0;  // Place in loads or saves.
  memory::ShardCopy shard;
  bool is_done = false;
};

enum class Way : std::uint8_t { kIn, kOut };

}  // namespace

struct Worker::State {
  const Options options;
  const Clock& clock;
  LogSink& log;
  const pid_t process = ::getpid();
  std::shared_ptr<const memory::Device> device;
  std::unique_ptr<attach::AttachClient> client;
  std::unique_ptr<CopyPool> pool;
  std::vector<wire::Report> reports;  // Oldest first; engine thread.
  // The step's orders come to the canary, to the loads and to the saves: read once. Engine thread.
  std::vector<std::byte> last_bytes;
  wire::Orders last_orders;
  // The last step whose loads were run, each of them known as good or named. Engine thread.
  std::uint64_t loaded_owner = 0;
  StepId loaded_step{0};
  Counter loaded;
  Counter corrupt;
  Counter refused;
  Counter saved;
  std::atomic<wire::CanaryResult> canary{wire::CanaryResult::kNotRun};
  OpenCalls calls;
  mutable Mutex mutex;
  std::string canary_problem TERRACE_GUARDED_BY(mutex);

  State(Options given, const Clock& its_clock, LogSink& its_log)
      : options(std::move(given)), clock(its_clock), log(its_log) {}

  // Valid until the next call.
  [[nodiscard]] Result<const wire::Orders*> read(std::span<const std::byte> bytes);
  // Null, with the reason logged, when these orders cannot be run now.
  [[nodiscard]] AttachmentPtr attachment_for(const wire::Orders& orders) const;
  [[nodiscard]] wire::Report& report_for(const wire::Orders& orders,
                                         const AttachmentPtr& attachment);
  void report_idle_step(const wire::Orders& orders);
  // Nobody knows what became of its loads: as if it had never been reported.
  void forget_report(const wire::Orders& orders);
  [[nodiscard]] std::vector<std::uint32_t> load(const wire::Orders& orders);
  [[nodiscard]] std::optional<std::uint16_t> group_index(GroupId group) const;
  [[nodiscard]] std::uint64_t shard_bytes(const Copy& copy) const {
    return options.layout.groups[copy.shard.group].shard_bytes().value();
  }
  // Nothing if group or block are not there; the null block is nobody's.
  [[nodiscard]] std::optional<memory::ShardCopy> shard_for(const attach::Attachment& attachment,
                                                           SlotRef slot, GroupId group,
                                                           std::uint32_t block) const;
  [[nodiscard]] std::vector<Copy> accept_loads(const wire::Orders& orders,
                                               const attach::Attachment& attachment) const;
  [[nodiscard]] std::vector<Copy> accept_saves(const wire::Orders& orders,
                                               const attach::Attachment& attachment) const;
  [[nodiscard]] std::vector<std::uint32_t> report_failures(const wire::Orders& orders,
                                                           const std::vector<bool>& is_good,
                                                           wire::Report& report) const;
  // Returns the bytes copied.
  std::uint64_t run(std::vector<Copy>& copies, Way way) const;
  void run_batch(std::vector<Copy>& copies, Way way) const;
};

Result<const wire::Orders*> Worker::State::read(std::span<const std::byte> bytes) {
  const bool is_read = !bytes.empty() && bytes.size() == last_bytes.size() &&
                       std::memcmp(bytes.data(), last_bytes.data(), bytes.size()) == 0;
  if (!is_read) {
    last_bytes.clear();
    TERRACE_ASSIGN_OR_RETURN(last_orders, wire::decode_orders(bytes));
    last_bytes.assign(bytes.begin(), bytes.end());
  }
  return &last_orders;
}

AttachmentPtr Worker::State::attachment_for(const wire::Orders& orders) const {
  AttachmentPtr attachment = client->attachment();
  std::string why;
  if (attachment == nullptr) {
    why = client->problem();
  } else if (attachment->owner != orders.owner) {
    why = fmt::format("orders are of owner {:016x}, attached to {:016x}", orders.owner,
                      attachment->owner);
    attachment = nullptr;
  }
  if (attachment == nullptr) {
    log.write(LogLevel::kWarn, fmt::format("part=worker event=orders_refused rank={} why=\"{}\"",
                                           options.rank.value(), why));
  }
  return attachment;
}

wire::Report& Worker::State::report_for(const wire::Orders& orders,
                                        const AttachmentPtr& attachment) {
  const Epoch epoch = attachment != nullptr ? attachment->epoch : Epoch(0);
  if (!reports.empty()) {
    wire::Report& last = reports.back();
    if (last.owner == orders.owner && last.step == orders.step && last.epoch == epoch) return last;
  }
  if (reports.size() >= kMaxReports) {
    log.write(LogLevel::kWarn, "part=worker event=report_dropped why=\"nobody fetches reports\"");
    reports.erase(reports.begin());
  }
  wire::Report report;
  report.owner = orders.owner;
  report.epoch = epoch;
  report.rank = options.rank;
  report.step = orders.step;
  return reports.emplace_back(std::move(report));
}

void Worker::State::forget_report(const wire::Orders& orders) {
  std::erase_if(reports, [&](const wire::Report& report) {
    return report.owner == orders.owner && report.step == orders.step;
  });
}

std::optional<std::uint16_t> Worker::State::group_index(GroupId group) const {
  const auto& groups = options.layout.groups;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].group == group) return static_cast<std::uint16_t>(i);
  }
  return {};
}

std::optional<memory::ShardCopy> Worker::State::shard_for(const attach::Attachment& attachment,
                                                          SlotRef slot, GroupId group,
                                                          std::uint32_t block) const {
  const auto index = group_index(group);
  if (!index.has_value() || slot.index.value() >= attachment.geometry.slots) return {};
  const memory::GroupRegions& regions = device->groups()[*index];
  const bool is_null = regions.has_null_block && regions.null_block == block;
  if (block >= regions.block_count || is_null) return {};
  return memory::ShardCopy{*index, block, attachment.lane.slot(slot.index).data(), {}};
}

// Two orders that write one place with different bytes contradict each other: neither is run.
std::vector<Copy> Worker::State::accept_loads(const wire::Orders& orders,
                                              const attach::Attachment& attachment) const {
  std::map<std::pair<GroupId, std::uint32_t>, std::pair<SlotRef, bool>> targets;
  for (const wire::LoadOrder& load : orders.loads) {
    const auto [at, is_new] =
        targets.try_emplace({load.group, load.device_block}, load.slot, load.is_void);
    if (!is_new && at->second.first != load.slot) at->second.second = true;
  }
  std::vector<Copy> copies;
  copies.reserve(orders.loads.size());
  for (std::size_t i = 0; i < orders.loads.size(); ++i) {
    const wire::LoadOrder& load = orders.loads[i];
    if (load.is_void || load.checksums.size() != options.layout.ranks) continue;
    if (targets.at({load.group, load.device_block}).second) continue;
    const auto shard = shard_for(attachment, load.slot, load.group, load.device_block);
    if (shard.has_value()) copies.push_back({i, *shard, false});
  }
  return copies;
}

std::vector<Copy> Worker::State::accept_saves(const wire::Orders& orders,
                                              const attach::Attachment& attachment) const {
  std::vector<SlotIndex> used;  // A slot that more than one order uses is not written.
  used.reserve(orders.saves.size() + orders.loads.size() + 1);
  for (const wire::SaveOrder& save : orders.saves) used.push_back(save.slot.index);
  for (const wire::LoadOrder& load : orders.loads) {
    if (!load.is_void) used.push_back(load.slot.index);
  }
  used.emplace_back(orders.canary_slot);
  std::ranges::sort(used);
  std::vector<Copy> copies;
  copies.reserve(orders.saves.size());
  for (std::size_t i = 0; i < orders.saves.size(); ++i) {
    const wire::SaveOrder& save = orders.saves[i];
    const auto shard = shard_for(attachment, save.slot, save.group, save.device_block);
    // First touch of shared memory takes 0.15-0.4 s per GiB: not here, in the engine's step.
    const bool is_present = shard.has_value() && attachment.lane.is_populated(save.slot.index);
    if (is_present && std::ranges::equal_range(used, save.slot.index).size() == 1)
      copies.push_back({i, *shard, false});
  }
  return copies;
}

// All or none: of a batch that failed no checksum may be believed.
void Worker::State::run_batch(std::vector<Copy>& copies, Way way) const {
  std::vector<memory::ShardCopy> shards;
  shards.reserve(copies.size());
  for (const Copy& copy : copies) shards.push_back(copy.shard);
  const Status status = way == Way::kIn ? device->copy_in(shards) : device->copy_out(shards);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    copies[i].is_done = status.is_ok();
    copies[i].shard.checksum = shards[i].checksum;
  }
  if (!status.is_ok()) {
    log.write(LogLevel::kError, fmt::format("part=worker event=copy_failed shards={} detail=\"{}\"",
                                            copies.size(), status.message()));
  }
}

std::uint64_t Worker::State::run(std::vector<Copy>& copies, Way way) const {
  std::uint64_t bytes = 0;
  for (const Copy& copy : copies) bytes += shard_bytes(copy);
  if (device->wants_batches()) {
    if (!copies.empty()) run_batch(copies, way);
    return bytes;
  }
  const auto one = [&](std::size_t i) {
    const std::span<memory::ShardCopy> shard(&copies[i].shard, 1);
    const Status status = way == Way::kIn ? device->copy_in(shard) : device->copy_out(shard);
    copies[i].is_done = status.is_ok();
    if (!status.is_ok()) {
      log.write(LogLevel::kError,
                fmt::format("part=worker event=copy_failed detail=\"{}\"", status.message()));
    }
    if (way == Way::kIn) {
      TERRACE_SYNC_POINT("worker.load.copied");
    } else {
      TERRACE_SYNC_POINT("worker.save.copied");
    }
  };
  if (bytes >= kShareBytes && copies.size() > 1) {
    pool->run(copies.size(), one);
  } else {
    for (std::size_t i = 0; i < copies.size(); ++i) one(i);
  }
  return bytes;
}

// Puts every load that is not good into the report; returns their device blocks.
std::vector<std::uint32_t> Worker::State::report_failures(const wire::Orders& orders,
                                                          const std::vector<bool>& is_good,
                                                          wire::Report& report) const {
  std::vector<std::uint32_t> failed;
  for (std::size_t i = 0; i < orders.loads.size(); ++i) {
    if (is_good[i]) continue;
    const wire::LoadOrder& load = orders.loads[i];
    report.failures.push_back({load.slot, load.group, load.device_block});
    failed.push_back(load.device_block);
  }
  if (!report.failures.empty()) {
    log.write(LogLevel::kWarn,
              fmt::format("part=worker event=loads_failed rank={} step={} failed={} of={}",
                          options.rank.value(), orders.step.value(), report.failures.size(),
                          orders.loads.size()));
  }
  std::sort(failed.begin(), failed.end());
  failed.erase(std::unique(failed.begin(), failed.end()), failed.end());
  return failed;
}

Worker::Worker(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Worker>> Worker::open(Options options, const Clock& clock, LogSink& log) {
  auto state = std::make_unique<State>(std::move(options), clock, log);
  const Options& kept = state->options;
  TERRACE_RETURN_IF_ERROR(memory::validate(kept.groups, kept.layout));
  state->device = kept.device;
  if (state->device == nullptr) {
    TERRACE_ASSIGN_OR_RETURN(auto cpu, memory::make_cpu_device(kept.groups, kept.layout));
    state->device = std::move(cpu);
  }
  attach::AttachClient::Options attach_options;
  attach_options.directory = kept.attach_directory;
  attach_options.engine_id = kept.engine_id;
  attach_options.rank = kept.rank;
  attach_options.layout = kept.layout;
  attach_options.timeout = kept.attach_timeout;
  state->pool = CopyPool::start(kept.threads, log);
  TERRACE_ASSIGN_OR_RETURN(state->client,
                           attach::AttachClient::start(std::move(attach_options), clock, log));
  return std::unique_ptr<Worker>(new Worker(std::move(state)));
}

Worker::~Worker() {
  // In a forked child nothing is its own.
  if (state_->process != ::getpid() || !close(kDestroyLimit)) leave_behind(std::move(state_));
}

bool Worker::close(Nanoseconds limit) {
  State& state = *state_;
  const Nanoseconds begin = state.clock.now();
  const Nanoseconds deadline = begin + std::clamp(limit, Nanoseconds(0), kLongestClose);
  // To the owner the end of the attachment means that no late write can land: calls go first.
  if (state.calls.end(deadline, state.clock) &&
      state.pool->close(deadline + kCloseGrace, state.clock) &&
      state.client->close(deadline + kCloseGrace)) {
    return true;
  }
  state.log.write(LogLevel::kError,
                  "part=worker event=close_overdue detail=\"a copy or a thread hangs\"");
  return false;
}

Status Worker::run_canary(std::span<const std::byte> encoded) {
  State& state = *state_;
  const OpenCalls::Call call(state.calls);
  if (!call.is_admitted()) return {Code::kClosed, "run_canary: closed"};
  TERRACE_ASSIGN_OR_RETURN(const wire::Orders* read, state.read(encoded));
  const wire::Orders& orders = *read;
  if (orders.canary_slot == UINT32_MAX) return {};
  const AttachmentPtr attachment = state.attachment_for(orders);
  if (attachment == nullptr || orders.canary_slot >= attachment->geometry.slots) {
    return {Code::kUnavailable, "canary: not attached to the owner that asks for it"};
  }
  const Status status = worker::run_canary(*state.device, state.options.layout, state.options.rank,
                                           attachment->lane.slot(SlotIndex(orders.canary_slot)));
  const auto result = status.is_ok() ? wire::CanaryResult::kPassed : wire::CanaryResult::kFailed;
  state.report_for(orders, attachment).canary = result;
  state.canary.store(result);
  {
    const MutexLock lock(state.mutex);
    state.canary_problem = status.message();
  }
  state.log.write(status.is_ok() ? LogLevel::kInfo : LogLevel::kError,
                  fmt::format("part=worker event=canary rank={} passed={} detail=\"{}\"",
                              state.options.rank.value(), status.is_ok(), status.message()));
  return status;
}

Result<std::vector<std::uint32_t>> Worker::run_loads(std::span<const std::byte> encoded) {
  State& state = *state_;
  const OpenCalls::Call call(state.calls);
  if (!call.is_admitted()) return fail(Code::kClosed, "run_loads: closed");
  TERRACE_ASSIGN_OR_RETURN(const wire::Orders* read, state.read(encoded));
  const wire::Orders& orders = *read;
  if (orders.loads.empty()) return std::vector<std::uint32_t>();
  try {
    return state.load(orders);
  } catch (...) {
    state.forget_report(orders);
    throw;
  }
}

std::vector<std::uint32_t> Worker::State::load(const wire::Orders& orders) {
  const AttachmentPtr attachment = attachment_for(orders);
  wire::Report& report = report_for(orders, attachment);
  std::vector<bool> is_good(orders.loads.size());
  if (attachment != nullptr) {
    const Nanoseconds begin = clock.now();
    std::vector<Copy> copies = accept_loads(orders, *attachment);
    report.load_bytes += run(copies, Way::kIn);
    report.load_ns += static_cast<std::uint64_t>((clock.now() - begin).value());
    refused.add(orders.loads.size() - copies.size());
    for (const Copy& copy : copies) {
      const Checksum expected = orders.loads[copy.order].checksums[options.rank.value()];
      is_good[copy.order] = copy.is_done && copy.shard.checksum == expected;
      (is_good[copy.order] ? loaded : corrupt).add();
    }
  } else {
    refused.add(orders.loads.size());
  }
  auto failed = report_failures(orders, is_good, report);
  loaded_owner = orders.owner;
  loaded_step = orders.step;
  return failed;
}

Result<std::vector<std::uint32_t>> Worker::refuse_loads(std::span<const std::byte> encoded) {
  State& state = *state_;
  const OpenCalls::Call call(state.calls);
  if (!call.is_admitted()) return fail(Code::kClosed, "run_loads: closed");
  TERRACE_ASSIGN_OR_RETURN(const wire::Orders* read, state.read(encoded));
  const wire::Orders& orders = *read;
  if (orders.loads.empty()) return std::vector<std::uint32_t>();
  state.refused.add(orders.loads.size());
  // A canary that was not run has no answer: that report names no attachment, and the owner refuses
  // it.
  const AttachmentPtr attachment =
      orders.canary_slot == UINT32_MAX ? state.attachment_for(orders) : nullptr;
  return state.report_failures(orders, std::vector<bool>(orders.loads.size()),
                               state.report_for(orders, attachment));
}

// The owner orders nothing but to be told when such a step is over, to learn how long it takes.
void Worker::State::report_idle_step(const wire::Orders& orders) {
  if (!orders.loads.empty() || orders.canary_slot != UINT32_MAX) return;  // These report.
  if (const AttachmentPtr attachment = attachment_for(orders)) (void)report_for(orders, attachment);
}

Status Worker::run_saves(std::span<const std::byte> encoded) {
  State& state = *state_;
  const OpenCalls::Call call(state.calls);
  if (!call.is_admitted()) return {Code::kClosed, "run_saves: closed"};
  TERRACE_ASSIGN_OR_RETURN(const wire::Orders* read, state.read(encoded));
  const wire::Orders& orders = *read;
  if (orders.saves.empty()) {
    state.report_idle_step(orders);
    return {};
  }
  if (!orders.loads.empty() &&
      (state.loaded_owner != orders.owner || state.loaded_step != orders.step)) {
    // Computed on blocks that nobody filled. Without a report the owner takes the step for lost.
    state.refused.add(orders.saves.size());
    return {Code::kUnavailable, "run_saves: the loads of these orders were not run"};
  }
  const AttachmentPtr attachment = state.attachment_for(orders);
  wire::Report& report = state.report_for(orders, attachment);
  const std::size_t first = report.saves.size();
  for (const wire::SaveOrder& save : orders.saves) {
    report.saves.push_back({save.slot, save.group, false, {}});
  }
  std::uint64_t filled = 0;
  if (attachment != nullptr) {
    const Nanoseconds begin = state.clock.now();
    std::vector<Copy> copies = state.accept_saves(orders, *attachment);
    report.save_bytes += state.run(copies, Way::kOut);
    report.save_ns += static_cast<std::uint64_t>((state.clock.now() - begin).value());
    for (const Copy& copy : copies) {
      wire::SaveReport& save = report.saves[first + copy.order];
      save.is_filled = copy.is_done;
      if (copy.is_done) save.checksum = copy.shard.checksum;
      filled += copy.is_done ? 1 : 0;
    }
  }
  state.saved.add(filled);
  state.refused.add(orders.saves.size() - filled);
  return {};
}

std::string Worker::build_report() {
  const OpenCalls::Call call(state_->calls);
  std::string bytes;
  if (!call.is_admitted()) return bytes;
  for (const wire::Report& report : state_->reports) bytes += wire::encode(report);
  state_->reports.clear();
  return bytes;
}

bool Worker::is_attached() const { return state_->client->attachment() != nullptr; }

std::string Worker::problem() const {
  {
    const MutexLock lock(state_->mutex);
    if (!state_->canary_problem.empty()) return state_->canary_problem;
  }
  return state_->client->problem();
}

WorkerFacts Worker::facts() const {
  const State& state = *state_;
  WorkerFacts facts;
  if (const AttachmentPtr attachment = state.client->attachment(); attachment != nullptr) {
    facts.is_attached = true;
    facts.owner = attachment->owner;
    facts.epoch = attachment->epoch;
    facts.uses_huge_pages = attachment->lane.uses_huge_pages();
    facts.extents = attachment->geometry.extents();
    facts.populated_extents = attachment->lane.populated_extents();
  }
  facts.loaded = state.loaded.value();
  facts.corrupt = state.corrupt.value();
  facts.refused = state.refused.value();
  facts.saved = state.saved.value();
  facts.canary = state.canary.load();
  facts.threads = state.pool->threads();
  facts.device = state.device->name();
  facts.problem = problem();
  return facts;
}

}  // namespace terrace::worker
