#include "campaign/crash_history.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "campaign/medium.h"

namespace terrace::campaign {

namespace {
namespace fs = std::filesystem;
using transfer::Fault;

constexpr std::uint64_t kNumbers = 32;  // Blocks of a model; twice what the smallest cache holds.
constexpr std::size_t kMostUnderWay = 8;
constexpr std::uint64_t kExtra = 1000;  // Written after a crash, to see that life goes on.

std::string root_of(const tier::disk::Rig& rig, int path) {
  return fmt::format("{}/p{}", rig.path(), path);
}
}  // namespace

CrashHistory::CrashHistory(const Options& options, std::uint64_t seed, Figures& figures)
    : options_(options), rng_(seed), figures_(figures) {
  shape_.ranks = static_cast<std::uint16_t>(1 + rng_.below(2));
  const std::uint64_t payloads[] = {4096, 5000, 8192};
  shape_.payload_bytes = {payloads[rng_.below(3)]};
  if (rng_.chance(30)) shape_.payload_bytes.push_back(payloads[rng_.below(3)]);
  paths_ = rng_.chance(30) ? 2 : 1;
}

std::uint64_t CrashHistory::content_of(const Name& name, std::uint32_t version) {
  return (std::uint64_t{version} << 24U) + static_cast<std::uint64_t>(name.model) * 100'000 +
         name.group * 10'000U + name.number;
}

std::uint64_t CrashHistory::alias_of(const Name& name, std::uint32_t version) {
  return content_of(name, version) * 3;
}

void CrashHistory::find(std::uint64_t& counter, const std::string& what) {
  figures_.find(counter, fmt::format("{}: {}", context_, what));
}

void CrashHistory::run() {
  const std::size_t descriptors = open_descriptors();
  const std::size_t threads = live_threads();
  rig_ = std::make_unique<Rig>(shape_);
  for (int life = 0; life < options_.lives && figures_.findings.empty(); ++life) {
    context_ = fmt::format("life {}", life);
    live();
    if (rig_ == nullptr || !figures_.findings.empty()) break;
    crash_often();
  }
  rig_.reset();
  snapshot_.reset();
  context_ = "at the end";
  if (open_descriptors() != descriptors) find(figures_.leaks, "descriptors are left open");
  if (!are_threads_back_to(threads)) find(figures_.leaks, "threads are left");
}

void CrashHistory::draw_shape() {
  const bool is_first = copies_.empty();
  const std::string backends[] = {"io_uring", "threads"};
  backend_ = backends[rng_.below(2)];
  preallocate_ = rng_.chance(25) ? "zerofill" : "auto";
  has_faults_ = rng_.chance(60);
  sync_error_ = rng_.chance(30) ? 10 : 3;
  const int old_model = model_;
  const std::uint64_t old_blocks = blocks_;
  if (!is_first && rng_.chance(25)) model_ = 1 - model_;
  const std::uint64_t sizes[] = {12, 16, 24, 40};
  if (rng_.chance(25)) blocks_ = sizes[rng_.below(4)];
  // Another namespace may take the space, and a smaller size cuts it off.
  for (auto& [name, copies] : copies_) {
    if (blocks_ >= old_blocks && model_ == old_model && name.model == model_) continue;
    for (Copy& copy : copies) copy.gone = 0;
  }
}

void CrashHistory::configure(Rig& rig, int model) const {
  rig.set_model(model == 0 ? "model-a" : "model-b");
  rig.options().blocks = blocks_;
  rig.options().backend = backend_;
  rig.options().preallocate = preallocate_;
  rig.options().paths.clear();
  for (int path = 0; path < paths_; ++path) rig.options().paths.push_back(root_of(rig, path));
}

bool CrashHistory::open_recording() {
  configure(*rig_, model_);
  if (!was_killed_) {
    recorder_ = std::make_unique<transfer::Recorder>();
    if (!options_.trusts_syncs) recorder_->distrust_syncs();
    snapshot_ = std::make_unique<tier::disk::ScratchDirectory>();
    fs::copy(rig_->path(), snapshot_->path(), fs::copy_options::recursive);
  }
  start_ = recorder_->now();
  rig_->options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<transfer::FaultBackend>(std::move(inner), rng_.next());
    faults_ = faults.get();
    return std::make_unique<transfer::RecordingBackend>(std::move(faults), *recorder_);
  };
  const OpeningWatch watch(*recorder_, rig_->path());
  const Status status = rig_->open();
  if (!status.is_ok()) find(figures_.lost_sealed, "it does not open: " + status.text());
  return status.is_ok();
}

void CrashHistory::live() {
  draw_shape();
  under_way_.clear();
  was_reset_ = false;
  if (!open_recording()) {
    rig_.reset();
    return;
  }
  if (was_killed_) {
    expect_acknowledged();
  } else {
    adopt_all();
  }
  was_killed_ = false;
  if (rng_.chance(50)) rig_->settle();  // Else the files grow while it serves.
  if (has_faults_) {
    transfer::FaultRates rates;
    rates.write_error = 2;
    rates.sync_error = sync_error_;
    rates.no_space = 1;
    rates.delayed = 20;
    rates.reordered = 20;
    faults_->set_rates(rates);
  }
  work();
  faults_->set_rates({});
  drain();
  settle_accounts();
}

void CrashHistory::work() {
  const bool has_resets = rng_.chance(40);
  for (int i = 0; i < options_.writes; ++i) {
    while (under_way_.size() >= kMostUnderWay) step();
    if (has_resets && i > options_.writes / 3 && rng_.chance(8)) reset();
    const auto group = static_cast<std::uint16_t>(rng_.below(shape_.payload_bytes.size()));
    write({model_, group, rng_.below(kNumbers)});
    if (rng_.chance(50)) step();
  }
}

void CrashHistory::write(const Name& name) {
  const std::uint32_t version = next_version_++;
  const std::uint64_t token = next_token_++;
  BlockMemory memory = rig_->blank(name.group);
  memory.fill(content_of(name, version));
  Copy copy{.version = version, .begun = recorder_->now() + 1};
  if (was_reset_) copy.gone = copy.forbidden = 0;  // Ends with the process.
  const Status status =
      rig_->tier().begin_write(token, GroupId(name.group), tier::disk::hash_of(name.number),
                               alias_of(name, version), memory.shards(), memory.checksums());
  note_evictions();
  ++figures_.operations;
  if (!status.is_ok()) return;  // There already, or a path is failing.
  auto& copies = copies_[name];
  copies.push_back(copy);
  under_way_.emplace(token, Pending{name, copies.size() - 1, std::move(memory)});
}

void CrashHistory::note_evictions() {
  for (const catalog::Eviction& eviction : rig_->tier().take_evicted()) {
    for (auto& [name, copies] : copies_) {
      if (name.model != model_ || eviction.key.group.value() != name.group ||
          tier::disk::hash_of(name.number) != eviction.key.hash) {
        continue;
      }
      for (Copy& copy : copies) {
        if (copy.acknowledged != kNever) copy.gone = std::min(copy.gone, recorder_->now());
      }
    }
  }
}

void CrashHistory::step() {
  std::vector<tier::DiskDone> done;
  rig_->tier().wait(milliseconds(20));
  rig_->tier().poll(done);
  for (const tier::DiskDone& item : done) {
    const auto found = under_way_.find(item.token);
    if (found == under_way_.end()) continue;
    Copy& copy = copies_[found->second.name][found->second.copy];
    // What failed may have landed all the same, but was never acknowledged.
    if (item.status.is_ok()) copy.acknowledged = recorder_->now();
    under_way_.erase(found);
  }
}

void CrashHistory::drain() {
  const Nanoseconds limit = rig_->clock().now() + seconds(30);
  while ((!under_way_.empty() || !rig_->tier().is_idle()) && rig_->clock().now() < limit) step();
  if (!under_way_.empty()) {
    find(figures_.hangs, fmt::format("{} writes do not end", under_way_.size()));
  }
}

// With writes under way, which go on meanwhile.
void CrashHistory::reset() {
  rig_->tier().forget_all();
  was_reset_ = true;
  std::vector<std::pair<Name, std::size_t>> before;
  for (auto& [name, copies] : copies_) {
    if (name.model != model_) continue;
    for (std::size_t i = 0; i < copies.size(); ++i) {
      copies[i].gone = std::min(copies[i].gone, recorder_->now());
      before.emplace_back(name, i);
    }
  }
  const Nanoseconds limit = rig_->clock().now() + seconds(30);
  for (int steps = 0; rig_->tier().is_drop_pending(); ++steps) {
    if (steps == 20) faults_->set_rates({});  // A path that keeps failing would be left alone.
    if (under_way_.size() < kMostUnderWay) write({model_, 0, rng_.below(kNumbers)});
    step();
    if (rig_->clock().now() > limit) return find(figures_.hangs, "a reset does not end");
  }
  for (const auto& [name, i] : before) {
    Copy& copy = copies_[name][i];
    copy.forbidden = std::min(copy.forbidden, recorder_->now());
  }
}

// Nothing is under way any more: each slot is free or sealed, and what is there is right.
void CrashHistory::settle_accounts() {
  using catalog::SlotState;
  for (const SlotState state : {SlotState::kReserved, SlotState::kFilling, SlotState::kEvicting}) {
    if (const std::uint32_t count = rig_->tier().count(state); count > 0) {
      find(figures_.leaks, fmt::format("{} slots stay {}", count, catalog::to_string(state)));
    }
  }
  for (const auto& entry : copies_) {
    const Name& name = entry.first;
    if (name.model != model_) continue;
    if (!rig_->tier().contains(GroupId(name.group), tier::disk::hash_of(name.number))) continue;
    Status status;
    const auto version = version_read(*rig_, name, status);
    const bool is_known =
        version && std::ranges::any_of(entry.second, [&](const Copy& copy) {
          return copy.version == *version && (copy.acknowledged != kNever || copy.begun <= start_);
        });
    if (is_known) continue;
    find(figures_.wrong_bytes, fmt::format("block {} of a living cache: {}", name.number,
                                           version ? "never sealed so" : status.text()));
  }
  for (const auto fault : {Fault::kError, Fault::kNoSpace, Fault::kDelay, Fault::kReorder}) {
    figures_.inject(backend_, std::string(to_string(fault)), faults_->injected(fault));
  }
  faults_ = nullptr;
  rig_->close();
}

std::optional<std::uint32_t> CrashHistory::version_read(Rig& rig, const Name& name,
                                                        Status& status) {
  const BlockMemory memory = rig.blank(name.group);
  const std::uint64_t token = (std::uint64_t{1} << 40U) + next_token_++;
  status = rig.tier().begin_read(token, GroupId(name.group), tier::disk::hash_of(name.number),
                                 memory.shards(), transfer::IoClass::kTtftRead, kNoDeadline);
  if (!status.is_ok()) return std::nullopt;
  const tier::DiskDone done = rig.await(token);
  status = done.status;
  if (!status.is_ok()) return std::nullopt;
  for (const Copy& copy : copies_[name]) {
    BlockMemory wanted = rig.blank(name.group);
    wanted.fill(content_of(name, copy.version));
    if (memory.equals(wanted) && done.checksums == wanted.checksums() &&
        done.alias == alias_of(name, copy.version)) {
      return copy.version;
    }
  }
  status = {Code::kInternal, "bytes that were never written under this key, delivered as right"};
  return std::nullopt;
}

std::size_t CrashHistory::moment_of(std::size_t point, std::size_t points) {
  const std::size_t moments = recorder_->now() - start_ + 1;
  if (moments <= points / 3) return start_ + point % moments;  // Every one, several times.
  return start_ + rng_.below(moments);
}

void CrashHistory::crash_often() {
  const unsigned percents[] = {100, 0, 50, 10, 90};
  const std::size_t moments = recorder_->now() - start_ + 1;
  std::unique_ptr<Rig> after;
  std::size_t moment = 0;
  for (std::size_t point = 0; point < options_.points; ++point) {
    moment = moment_of(point, options_.points);
    const bool is_systematic = moments <= options_.points / 3;
    const unsigned percent = percents[is_systematic ? point / moments % 5 : rng_.below(5)];
    context_ = fmt::format("{} ranks, {} groups, {} paths, {}, model {}, moment {} of {}, {} %",
                           shape_.ranks, shape_.payload_bytes.size(), paths_, backend_, model_,
                           moment, recorder_->now(), percent);
    after = rebuild(moment, percent);
    ++figures_.crash_points;
    examine(*after, moment, model_);
    if (!figures_.findings.empty()) return;
    const bool is_last = point + 1 == options_.points;
    if (!is_last && rng_.chance(10)) {
      after->close();
      examine(*after, moment, 1 - model_);
    }
    if (!figures_.findings.empty()) return;
  }
  if (after == nullptr || rng_.chance(static_cast<unsigned>(options_.kills))) return kill();
  // The next life begins here, on what the last examination has left.
  learn(*after, moment);
  after->close();
  rig_ = std::move(after);
}

// The next life begins on all that had begun, and is cut off together with this one.
void CrashHistory::kill() {
  std::size_t moment = moment_of(rng_.next(), 0);
  // A header says that a sync failed just after it did; a kill in between is not made up for.
  while (is_untold(moment)) ++moment;
  std::unique_ptr<Rig> after = rebuild(moment, 100);
  recorder_->go_on_after_kill(moment, rig_->path(), after->path());
  for (auto& [name, copies] : copies_) {
    std::erase_if(copies, [&](const Copy& copy) { return copy.begun > moment; });
    for (Copy& copy : copies) {
      for (std::size_t* const when : {&copy.acknowledged, &copy.gone, &copy.forbidden}) {
        if (*when > moment) *when = kNever;
      }
    }
  }
  std::erase_if(copies_, [](const auto& entry) { return entry.second.empty(); });
  rig_ = std::move(after);
  was_killed_ = true;
}

bool CrashHistory::is_untold(std::size_t moment) const {
  return moment < recorder_->now() && recorder_->is_untold(moment, "slots.meta");
}

std::unique_ptr<CrashHistory::Rig> CrashHistory::rebuild(std::size_t moment, unsigned percent) {
  auto after = std::make_unique<Rig>(shape_);
  fs::copy(snapshot_->path(), after->path(), fs::copy_options::recursive);
  const auto moved = [&](const std::string& path) {
    return path.empty() ? path : after->path() + path.substr(rig_->path().size());
  };
  for (const auto& landed : recorder_->survivors(moment, rng_, percent)) {
    if (!land(landed, moved(landed.path), moved(landed.source))) {
      find(figures_.lost_sealed, "the medium cannot be rebuilt: " + landed.path);
    }
  }
  return after;
}

void CrashHistory::examine(Rig& rig, std::size_t moment, int model) {
  configure(rig, model);
  const Status status = rig.open();
  if (!status.is_ok()) return find(figures_.lost_sealed, "it does not open: " + status.text());
  for (const auto& [name, copies] : copies_) {
    if (name.model == model) judge(rig, name, moment);
  }
  if (rig.metric("terrace_disk_corrupt_blocks_total") != 0) {
    find(figures_.wrong_bytes, "a record that counts names a damaged frame");
  }
  // And life goes on.
  const Status written = rig.write(kExtra + figures_.crash_points);
  const Status read = rig.read(kExtra + figures_.crash_points);
  if (!written.is_ok() || !read.is_ok()) {
    find(figures_.hangs, fmt::format("afterwards: {}; {}", written.text(), read.text()));
  }
}

void CrashHistory::judge(Rig& rig, const Name& name, std::size_t moment) {
  const std::vector<Copy>& copies = copies_.at(name);
  const bool is_found = rig.tier().contains(GroupId(name.group), tier::disk::hash_of(name.number));
  bool must_be = false;
  std::set<std::uint32_t> allowed;
  for (const Copy& copy : copies) {
    const bool is_durable = copy.acknowledged <= moment && copy.forbidden != 0;
    if (is_durable && copy.gone > moment) allowed.clear();  // It stands above those of before.
    if (copy.begun <= moment && copy.forbidden > moment) allowed.insert(copy.version);
    must_be = must_be || (is_durable && copy.gone > moment);
  }
  if (must_be && !is_found) {
    find(figures_.lost_sealed, fmt::format("acknowledged block {} is lost", name.number));
  }
  if (!is_found) return;
  Status status;
  const auto version = version_read(rig, name, status);
  if (!version) {
    find(figures_.wrong_bytes,
         fmt::format("block {} is found, but {}", name.number, status.text()));
  } else if (!allowed.contains(*version)) {
    find(figures_.wrong_bytes,
         fmt::format("block {} is found with version {}, which may not be", name.number, *version));
  }
}

void CrashHistory::learn(Rig& rig, std::size_t moment) {
  for (auto& [name, copies] : copies_) {
    if (name.model == model_) {
      keep_possible(copies, moment);
      adopt(rig, name, copies);
    } else {
      keep_possible(copies, moment);
    }
  }
  std::erase_if(copies_, [](const auto& entry) { return entry.second.empty(); });
}

// What is found lies on the medium, and has to be found from now on.
void CrashHistory::adopt(Rig& rig, const Name& name, std::vector<Copy>& copies) {
  if (!rig.tier().contains(GroupId(name.group), tier::disk::hash_of(name.number))) return;
  Status status;
  const auto version = version_read(rig, name, status);
  const auto found = std::ranges::find(copies, version.value_or(0), &Copy::version);
  if (found == copies.end()) {
    return find(figures_.wrong_bytes, fmt::format("block {} is found with what may not be: {}",
                                                  name.number, status.text()));
  }
  std::rotate(found, found + 1, copies.end());
  copies.back() = {.version = copies.back().version, .begun = 0, .acknowledged = 0};
}

// After an orderly end, or as another namespace has left it.
void CrashHistory::adopt_all() {
  for (auto& [name, copies] : copies_) {
    if (name.model != model_) continue;
    const bool must_be = copies.back().acknowledged == 0 && copies.back().gone == kNever;
    if (must_be && !rig_->tier().contains(GroupId(name.group), tier::disk::hash_of(name.number))) {
      find(figures_.lost_sealed, fmt::format("block {} is lost at a restart", name.number));
    }
    adopt(*rig_, name, copies);
  }
}

// After a kill nothing of what was acknowledged is missed; that something is found tells nothing.
void CrashHistory::expect_acknowledged() {
  for (const auto& [name, copies] : copies_) {
    if (name.model == model_) judge(*rig_, name, start_);
  }
}

// An older record of a block may outlive a newer one of another slot: what was sealed once and not
// reset may be found, and has the right bytes.
void CrashHistory::keep_possible(std::vector<Copy>& copies, std::size_t moment) {
  std::erase_if(copies,
                [&](const Copy& copy) { return copy.begun > moment || copy.forbidden <= moment; });
  for (Copy& copy : copies) copy = {.version = copy.version, .begun = 0, .gone = 0};
}

}  // namespace terrace::campaign
