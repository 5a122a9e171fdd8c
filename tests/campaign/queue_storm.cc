#include "campaign/queue_storm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/transfer/backends/fault/fault_store.h"
#include "terrace/transfer/builtin.h"
#include "terrace/transfer/object_queue.h"
#include "terrace/transfer/queue.h"

namespace terrace::campaign {

namespace {
constexpr std::size_t kSector = 512;
constexpr std::size_t kMostSectors = 16;
constexpr std::uint64_t kFileSectors = 512;
constexpr std::byte kBuried{0x5a};

// Memory of one operation. Given back, it is filled with kBuried and looked at again much later.
class Buffers {
 public:
  explicit Buffers(std::size_t count) : all_(count) {
    for (std::size_t i = count; i > 0; --i) free_.push_back(i - 1);
    for (auto& buffer : all_) buffer.assign(kMostSectors * kSector, kBuried);
  }
  [[nodiscard]] bool is_empty() const { return free_.empty(); }
  // The one that was given back first: its time is the longest.
  std::size_t take() {
    const std::size_t index = free_.front();
    free_.erase(free_.begin());
    return index;
  }
  void give(std::size_t index) {
    std::ranges::fill(all_[index], kBuried);
    free_.push_back(index);
  }
  [[nodiscard]] std::vector<std::byte>& at(std::size_t index) { return all_[index]; }
  [[nodiscard]] bool is_undisturbed(std::size_t index) const {
    return std::ranges::all_of(all_[index], [](std::byte byte) { return byte == kBuried; });
  }

 private:
  std::vector<std::vector<std::byte>> all_;
  std::vector<std::size_t> free_;
};

// What was accepted, by token; each ends once.
class Ledger {
 public:
  Ledger(std::string who, Figures& figures) : who_(std::move(who)), figures_(figures) {}
  Buffers& buffers() { return buffers_; }
  std::uint64_t begin(std::size_t buffer) {
    under_way_[++last_] = buffer;
    return last_;
  }
  void end(std::uint64_t token) {
    const auto found = under_way_.find(token);
    if (found == under_way_.end()) {
      return figures_.find(figures_.leaks, who_ + ": something ended twice");
    }
    buffers_.give(found->second);
    under_way_.erase(found);
  }
  std::size_t take() {
    const std::size_t buffer = buffers_.take();
    if (!buffers_.is_undisturbed(buffer)) {
      figures_.find(figures_.wrong_bytes, who_ + ": memory that was given back was written");
    }
    return buffer;
  }
  [[nodiscard]] std::size_t under_way() const { return under_way_.size(); }

 private:
  const std::string who_;
  Figures& figures_;
  Buffers buffers_{48};
  std::map<std::uint64_t, std::size_t> under_way_;
  std::uint64_t last_ = 0;
};

transfer::FaultRates rates_of_transfers(Rng& rng) {
  const auto some = [&] { return static_cast<unsigned>(2 + rng.below(8)); };
  transfer::FaultRates rates;
  rates.read_error = some();
  rates.write_error = some();
  rates.sync_error = some();
  rates.no_space = some();
  rates.read_only = some();
  rates.flipped_read = some();
  rates.flipped_write = some();
  rates.short_read = some();
  rates.torn_write = some();
  rates.misplaced_read = some();
  rates.replayed_read = some();
  rates.interrupted = some();
  rates.again = some();
  rates.delayed = some();
  rates.duplicated = some();
  rates.reordered = some();
  rates.lost = 1;
  return rates;
}

transfer::ObjectFaultRates rates_of_requests(Rng& rng) {
  const auto some = [&] { return static_cast<unsigned>(1 + rng.below(6)); };
  transfer::ObjectFaultRates rates;
  rates.error = some();
  rates.busy = some();
  rates.full = some();
  rates.flipped = some();
  rates.short_object = some();
  rates.misplaced = some();
  rates.landed_and_failed = some();
  rates.falsely_there = some();
  rates.delayed = some();
  rates.cut = some();
  rates.broken = some();
  rates.falsely_absent = some();
  rates.stale_list = 20;
  rates.duplicated = some();
  rates.reordered = some();
  rates.lost = 1;
  return rates;
}

transfer::Transfer drawn_transfer(Rng& rng, int file, std::vector<std::byte>& memory,
                                  const Clock& clock) {
  transfer::Transfer transfer;
  const std::uint64_t kind = rng.below(20);
  transfer.op = kind == 0   ? transfer::IoOp::kSync
                : kind == 1 ? transfer::IoOp::kAllocate
                : kind < 10 ? transfer::IoOp::kWrite
                            : transfer::IoOp::kRead;
  transfer.io_class = static_cast<transfer::IoClass>(rng.below(transfer::kIoClassCount));
  transfer.file = file;
  const std::size_t sectors = 1 + rng.below(kMostSectors);
  transfer.offset = rng.below(kFileSectors - sectors) * kSector;
  transfer.length = sectors * kSector;
  if (kind > 1) {
    const std::size_t first = rng.below(sectors) * kSector;
    if (first > 0) transfer.pieces[transfer.piece_count++] = {memory.data(), first};
    transfer.pieces[transfer.piece_count++] = {memory.data() + first, sectors * kSector - first};
  }
  if (rng.chance(30)) {
    transfer.deadline = clock.now() + milliseconds(static_cast<std::int64_t>(rng.below(20)));
  }
  return transfer;
}
}  // namespace

namespace {
class TransferStorm {
 public:
  TransferStorm(const std::string& backend, std::unique_ptr<transfer::Backend> inner, int file,
                std::uint64_t seed, Figures& figures)
      : backend_(backend),
        file_(file),
        rng_(seed),
        figures_(figures),
        faults_(std::move(inner), rng_.next()),
        queue_(faults_, clock_, options()),
        ledger_("queue over " + backend, figures) {
    faults_.set_rates(rates_of_transfers(rng_));
  }
  void run(int steps) {
    for (int i = 0; i < steps; ++i) step();
    faults_.set_rates({});
    faults_.hold(false);
    const SystemClock real;
    const Nanoseconds limit = real.now() + seconds(30);
    while (!queue_.is_idle() && real.now() < limit) {
      faults_.release_lost();
      faults_.wait(milliseconds(2));
      poll();
    }
    if (!queue_.is_idle() || ledger_.under_way() > 0) {
      figures_.find(figures_.hangs,
                    fmt::format("queue over {}: {} transfers do not end, {} in flight", backend_,
                                ledger_.under_way(), queue_.in_flight()));
    }
    for (int kind = 0; kind < transfer::kFaultCount; ++kind) {
      const auto fault = static_cast<transfer::Fault>(kind);
      figures_.inject(backend_, std::string(to_string(fault)), faults_.injected(fault));
    }
  }

 private:
  static transfer::Queue::Options options() {
    transfer::Queue::Options options;
    options.capacity = 24;
    return options;
  }
  void step() {
    clock_.advance(Nanoseconds(static_cast<std::int64_t>(rng_.below(1'000'000))));
    if (!ledger_.buffers().is_empty()) push();
    if (rng_.below(500) == 0) {
      faults_.hold(true);
      figures_.inject(backend_, "hang");
    } else if (rng_.below(20) == 0) {
      faults_.hold(false);
    }
    if (rng_.below(300) == 0) {
      completions_.clear();
      queue_.cancel(static_cast<transfer::IoClass>(rng_.below(transfer::kIoClassCount)),
                    {Code::kClosed, "cancelled"}, completions_);
      end_all();
    }
    if (faults_.lost() > 3) faults_.release_lost();
    if (queue_.in_flight() == queue_.depth()) faults_.wait(milliseconds(1));
    poll();
  }
  void push() {
    const std::size_t buffer = ledger_.take();
    auto transfer = drawn_transfer(rng_, file_, ledger_.buffers().at(buffer), clock_);
    transfer.token = ledger_.begin(buffer);
    if (!queue_.push(transfer).is_ok()) ledger_.end(transfer.token);
    ++figures_.operations;
  }
  void poll() {
    completions_.clear();
    queue_.poll(completions_);
    end_all();
  }
  void end_all() {
    for (const transfer::Completion& completion : completions_) ledger_.end(completion.token);
  }

  const std::string backend_;
  const int file_;
  Rng rng_;
  Figures& figures_;
  testing::FakeClock clock_;
  transfer::FaultBackend faults_;
  transfer::Queue queue_;
  Ledger ledger_;
  std::vector<transfer::Completion> completions_;
};
}  // namespace

void storm_queue(const std::string& backend, std::uint64_t seed, int steps, Figures& figures) {
  const std::size_t descriptors = open_descriptors();
  {
    const tier::disk::ScratchDirectory scratch;
    const auto file = open_file(scratch.path() + "/file", O_RDWR | O_CREAT);
    auto chosen = transfer::make_backend(backend, {.depth = 16, .threads = 2});
    if (!file || !chosen || ::ftruncate(file->get(), kFileSectors * kSector) != 0) {
      return figures.find(figures.hangs, "queue over " + backend + ": does not start");
    }
    TransferStorm(backend, std::move(chosen->backend), file->get(), seed, figures).run(steps);
  }
  if (open_descriptors() != descriptors) {
    figures.find(figures.leaks, "queue over " + backend + ": descriptors are left open");
  }
}

namespace {
transfer::ObjectRequest drawn_request(Rng& rng, std::vector<std::byte>& memory,
                                      const Clock& clock) {
  transfer::ObjectRequest request;
  const transfer::ObjectOp ops[] = {transfer::ObjectOp::kGet,    transfer::ObjectOp::kGet,
                                    transfer::ObjectOp::kGet,    transfer::ObjectOp::kPut,
                                    transfer::ObjectOp::kPut,    transfer::ObjectOp::kHead,
                                    transfer::ObjectOp::kRemove, transfer::ObjectOp::kList};
  request.op = ops[rng.below(8)];
  request.name = fmt::format("folder/{}", rng.below(24));
  if (request.op == transfer::ObjectOp::kList) request.name = "folder/";
  if (request.op == transfer::ObjectOp::kPut || request.op == transfer::ObjectOp::kGet) {
    const std::size_t bytes = (1 + rng.below(kMostSectors)) * kSector;
    request.pieces = {{memory.data(), bytes / 2}, {memory.data() + bytes / 2, bytes - bytes / 2}};
  }
  if (request.op == transfer::ObjectOp::kGet) request.offset = rng.below(4) * kSector;
  request.deadline = clock.now() + milliseconds(5 + static_cast<std::int64_t>(rng.below(200)));
  return request;
}
}  // namespace

void storm_object_queue(const std::string& name, std::unique_ptr<transfer::ObjectStore> store,
                        std::uint64_t seed, int steps, Figures& figures) {
  Rng rng(seed);
  const std::string who = "object queue over " + name;
  transfer::FaultStore faults(std::move(store), rng.next());
  faults.set_rates(rates_of_requests(rng));
  const SystemClock clock;
  transfer::ObjectQueue queue(faults, clock,
                              {.capacity = 24,
                               .most_tries = 2,
                               .first_pause = Nanoseconds(20'000),
                               .longest_pause = Nanoseconds(100'000),
                               .rest = Nanoseconds(200'000),
                               .seed = rng.next() | 1U});
  Ledger ledger(who, figures);
  std::vector<transfer::ObjectAnswer> answers;
  const auto poll = [&] {
    answers.clear();
    queue.poll(answers);
    for (const transfer::ObjectAnswer& answer : answers) ledger.end(answer.token);
  };
  for (int i = 0; i < steps; ++i) {
    if (!ledger.buffers().is_empty()) {
      const std::size_t buffer = ledger.take();
      auto request = drawn_request(rng, ledger.buffers().at(buffer), clock);
      const std::uint64_t token = ledger.begin(buffer);
      request.token = token;
      const auto io_class = static_cast<transfer::IoClass>(rng.below(transfer::kIoClassCount));
      if (!queue.push(io_class, std::move(request)).is_ok()) ledger.end(token);
      ++figures.operations;
    }
    if (rng.below(500) == 0) {
      faults.hold(true);
      figures.inject(name, "hang");
    } else if (rng.below(20) == 0) {
      faults.hold(false);
    }
    if (faults.lost() > 3) faults.release_lost();
    if (faults.in_flight() == faults.depth()) queue.wait(milliseconds(1));
    poll();
  }
  faults.set_rates({});
  faults.hold(false);
  const Nanoseconds limit = clock.now() + seconds(30);
  while (!queue.is_idle() && clock.now() < limit) {
    faults.release_lost();
    queue.wait(milliseconds(2));
    poll();
  }
  if (!queue.is_idle() || ledger.under_way() > 0) {
    figures.find(figures.hangs, fmt::format("{}: {} requests do not end", who, ledger.under_way()));
  }
  for (int kind = 0; kind < transfer::kObjectFaultCount; ++kind) {
    const auto fault = static_cast<transfer::ObjectFault>(kind);
    figures.inject(name, std::string(to_string(fault)), faults.injected(fault));
  }
}

}  // namespace terrace::campaign
