#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>
#include <numeric>
#include <utility>

#include "terrace/manager/size_forecast_internal.h"
#include "terrace/policy/curve/two_pools.h"

namespace terrace::manager {

namespace {
constexpr double kFactors[] = {0.5, 1, 2, 4};
constexpr std::size_t kUsualHashes = 4096;
constexpr std::size_t kUsualRequests = 64;
constexpr std::string_view kReference = "lru";
// Pools are tried from half of the first tier on: between these, as nobody has smaller ones, and as
// the curve of all sizes begins there.
constexpr std::uint64_t kLeastLeast = 64;
constexpr std::uint64_t kMostLeast = 256;

std::uint64_t block_bytes(const Layout& layout) {
  std::uint64_t bytes = 0;
  for (const GroupLayout& group : layout.groups) {
    bytes += group.shard_bytes().value() * layout.ranks;
  }
  return std::max<std::uint64_t>(bytes, 1);
}

std::uint64_t blocks_of(std::uint64_t blocks, Bytes size, std::uint64_t block_bytes) {
  return blocks > 0 ? blocks : size.value() / block_bytes;
}

// Those there are, or those that are only asked about.
ObservedTiers tiers_of(const Options& options) {
  if (options.observed) return *options.observed;
  const bool has_disk = !options.disk.paths.empty();
  return {options.host.size,
          options.host.blocks,
          has_disk ? options.disk.size : Bytes(0),
          has_disk ? options.disk.blocks : 0,
          disk_has_copies(options.disk),
          options.disk.eviction};
}

// Four cells an octave, each up to and with its last one.
std::size_t length_cell(std::uint64_t blocks) {
  const auto octave = static_cast<unsigned>(std::bit_width(blocks));
  if (octave <= 3) return blocks;
  const unsigned shift = octave - 3;
  return (blocks >> shift) + (std::size_t{shift} << 2U);
}

std::uint64_t last_of_cell(std::size_t cell) {
  if (cell < 8) return cell;
  const std::size_t shift = (cell >> 2U) - 1;
  return (((cell & 3U) | 4U) + 1) * (std::uint64_t{1} << shift) - 1;
}
}  // namespace

SizeForecast::SizeForecast(const Options& options, Nanoseconds now)
    : block_bytes_(block_bytes(options.layout)),
      block_tokens_(options.layout.block_tokens),
      host_blocks_(blocks_of(tiers_of(options).host_blocks, tiers_of(options).host, block_bytes_)),
      disk_blocks_(blocks_of(tiers_of(options).disk_blocks, tiers_of(options).disk, block_bytes_)),
      disk_has_copies_(tiers_of(options).disk_has_copies),
      host_eviction_(options.host.eviction),
      disk_eviction_(tiers_of(options).disk_eviction),
      pin_share_(options.pin_share),
      can_store_(options.can_store),
      worked_at_(now) {
  // Engine calls allocate only for more than this.
  for (Told* told : {&told_, &taken_}) {
    told->hashes.reserve(kUsualHashes);
    told->runs.reserve(kUsualRequests);
  }
}

void SizeForecast::add_run(std::span<const SequenceHash> chain, const Run& run) {
  if (told_.hashes.size() + chain.size() > kMostWaiting || told_.runs.size() >= kMostRuns) {
    dropped_.add();
    return;
  }
  told_.hashes.insert(told_.hashes.end(), chain.begin(), chain.end());
  try {
    told_.runs.push_back(run);
  } catch (const std::bad_alloc&) {
    told_.hashes.resize(told_.hashes.size() - chain.size());  // All of it or nothing.
    throw;
  }
}

void SizeForecast::ask(const AskedChain& asked) {
  if (asked.chain.empty()) return;
  const MutexLock lock(asked_mutex_);
  add_run(asked.chain, {.blocks = asked.chain.size(),
                        .is_asked = true,
                        .is_stored = asked.is_stored && can_store_,
                        .id = asked.id,
                        .at = asked.at});
}

void SizeForecast::end(const EndedChain& ended) noexcept {
  if (ended.chain.empty()) return;
  const MutexLock lock(asked_mutex_);
  try {
    add_run(ended.chain, {.blocks = ended.chain.size(),
                          .is_asked = false,
                          .is_stored = ended.is_stored && can_store_,
                          .id = ended.id,
                          .at = ended.at,
                          .prompt = ended.prompt_blocks,
                          .answer_tokens = ended.answer_tokens,
                          .ending = ended.ending,
                          .hints = ended.hints});
  } catch (const std::bad_alloc&) {
    dropped_.add();  // A request must end.
  }
}

void SizeForecast::note_tokens(Tokens prompt, Tokens engine) {
  const MutexLock lock(asked_mutex_);
  told_.prompt_tokens += prompt.value();
  told_.engine_tokens += engine.value();
}

bool SizeForecast::work(Nanoseconds now, const GivenUp& given_up) {
  if (has_failed_) return false;
  if (given_up != given_up_) {
    const MutexLock lock(curve_mutex_);
    window_.written += static_cast<double>(given_up.written - given_up_.written);
    window_.lost += static_cast<double>(given_up.lost - given_up_.lost);
    given_up_ = given_up;
  }
  bool has_learned = false;
  for (std::size_t left = kAtOnce; left > 0;) {
    const MutexLock lock(curve_mutex_);
    window_.seconds += static_cast<double>((now - worked_at_).value()) * 1e-9;
    worked_at_ = now;
    if (run_ == taken_.runs.size()) take_told();
    if (taken_.runs.empty() || !make_curve()) return has_learned;
    left -= std::min(left, learn(left));
    has_learned = true;
  }
  return true;
}

void SizeForecast::take_told() {
  taken_.hashes.clear();
  taken_.runs.clear();
  run_ = first_ = 0;
  {
    const MutexLock lock(asked_mutex_);
    std::swap(told_, taken_);
  }
  window_.prompt_tokens += static_cast<double>(std::exchange(taken_.prompt_tokens, 0));
  window_.engine_tokens += static_cast<double>(std::exchange(taken_.engine_tokens, 0));
}

bool SizeForecast::make_curve() {
  if (curve_) return true;
  const std::uint64_t of_tiers = kLargest * (host_blocks_ + disk_blocks_);
  const std::uint64_t most =
      std::max({of_tiers, kMostOfCurve.value() / block_bytes_, std::uint64_t{1}});
  auto made = policy::MissCurve::create(
      {.most_blocks = most, .aging_blocks = of_tiers > 0 ? of_tiers : kAgingBlocks});
  has_failed_ = !made.has_value();
  if (has_failed_) return false;
  curve_.emplace(*std::move(made));
  make_gain(most);
  return true;
}

// Without memory for it `lru` is told.
void SizeForecast::make_gain(std::uint64_t most_blocks) {
  const bool is_lru = host_eviction_ == kReference;
  const std::string& eviction = is_lru ? disk_eviction_ : host_eviction_;
  if (eviction == kReference) return;
  auto returns = policy::ReturnModel::create();
  if (!returns) return;
  const std::uint64_t tier = host_blocks_ > 0 ? host_blocks_ : disk_blocks_;
  auto gain = policy::EvictionGain::create(
      {.eviction = eviction,
       .least_blocks = tier == 0 ? kMostLeast : std::clamp(tier / 2, kLeastLeast, kMostLeast),
       .most_blocks = most_blocks,
       .returns = *returns});
  if (!gain) return;
  returns_ = *std::move(returns);
  gain_.emplace(*std::move(gain));
  arrivals_.resize(kArrivals);
}

policy::ReturnClass SizeForecast::class_of(const Run& run, std::span<const SequenceHash> chain) {
  Arrival& own = arrivals_[run.id.value() % kArrivals];
  if (run.is_asked || own.id != run.id) {  // Its arrival was left out.
    own = {.id = run.id, .visit = returns_->arrive(chain, run.at, run.hints)};
  }
  if (run.is_asked) return own.visit.of;
  return returns_->leave(own.visit, chain, run.prompt, run.answer_tokens, run.ending, run.at,
                         run.hints);
}

void SizeForecast::begin_run(const Run& run, std::span<const SequenceHash> chain) {
  if (run.is_asked) window_.lengths[length_cell(std::min(chain.size(), kMostWaiting))] += 1;
  if (!gain_) return;
  use_ = {.at = run.at, .of = class_of(run, chain), .priority = run.hints.priority};
  gain_->begin({.at = run.at, .is_asked = run.is_asked, .is_stored = run.is_stored});
}

// From its front on, what was there before; then from its end on, what is used now.
std::size_t SizeForecast::learn(std::size_t most) {
  const Run& run = taken_.runs[run_];
  const auto chain = std::span<const SequenceHash>(taken_.hashes).subspan(first_, run.blocks);
  if (looked_ < chain.size() && (run.is_asked || gain_)) {
    const bool is_first = looked_ == 0;
    if (is_first) begin_run(run, chain);
    const auto slice = chain.subspan(looked_, std::min(most, chain.size() - looked_));
    if (run.is_asked) curve_->look_for(slice);
    if (gain_) gain_->add(slice);
    looked_ += slice.size();
    if (gain_ && looked_ == chain.size()) gain_->end(use_);
    age_window();
    return slice.size() + (is_first && gain_ ? kOfRequest : 0);
  }
  const auto rest = chain.first(chain.size() - used_);
  const auto slice = rest.last(std::min(most, rest.size()));
  if (run.is_stored) {
    curve_->use(slice);
  } else {
    curve_->refresh(slice);
  }
  used_ += slice.size();
  if (used_ == chain.size()) {
    first_ += used_;
    ++run_;
    looked_ = used_ = 0;
  }
  return slice.size();
}

void SizeForecast::age_window() {
  for (; halvings_ < curve_->halvings(); ++halvings_) {
    window_.seconds /= 2;
    window_.prompt_tokens /= 2;
    window_.engine_tokens /= 2;
    window_.written /= 2;
    window_.lost /= 2;
    for (double& requests : window_.lengths) requests /= 2;
    if (gain_) gain_->age();
  }
}

std::uint64_t SizeForecast::longest_usual() const {
  constexpr double kNearlyAll = 0.99;
  const double all = std::accumulate(window_.lengths.begin(), window_.lengths.end(), 0.0);
  double sum = 0;
  for (std::size_t cell = 0; all > 0 && cell < window_.lengths.size(); ++cell) {
    sum += window_.lengths[cell];
    if (sum >= kNearlyAll * all) return last_of_cell(cell);
  }
  return 0;
}

policy::HitRatio SizeForecast::hit_ratio(std::string_view eviction) const {
  return {*curve_, gain_ && eviction != kReference ? &*gain_ : nullptr};
}

// Of two, that of the lower one, as it is larger nearly always. What is lost on the way down is not
// there later.
double SizeForecast::hit_percent(Tier tier, std::uint64_t blocks) const {
  if (!curve_) return 0;
  const policy::HitRatio of_host = hit_ratio(host_eviction_);
  if (tier == Tier::kHost) return 100 * of_host(blocks);
  const policy::HitRatio ratio = blocks < host_blocks_ ? of_host : hit_ratio(disk_eviction_);
  const double both = ratio(policy::size_of_two(ratio, host_blocks_, blocks, disk_has_copies_));
  if (disk_has_copies_) return 100 * both;
  const double lost_share = window_.lost > 0 ? window_.lost / (window_.lost + window_.written) : 0;
  return 100 * (both - lost_share * (both - std::min(both, of_host(host_blocks_))));
}

void SizeForecast::add_sizes(Tier tier, std::uint64_t blocks, ForecastStatus& status) const {
  for (const double factor : kFactors) {
    const auto asked = static_cast<std::uint64_t>(factor * static_cast<double>(blocks));
    status.sizes.push_back({.tier = tier,
                            .factor = factor,
                            .size = Bytes(asked * block_bytes_),
                            .hit_percent = hit_percent(tier, asked)});
  }
}

void SizeForecast::add_curve(ForecastStatus& status) const {
  if (!curve_) return;
  const policy::HitRatio ratio = hit_ratio(host_eviction_);
  const std::uint64_t least = std::bit_ceil(kLeastOfCurve * block_bytes_);
  for (std::uint64_t octave = least; octave <= kMostOfCurve.value(); octave *= 2) {
    for (const double factor : {1.0, 1.189207, 1.414214, 1.681793}) {
      const auto size = static_cast<std::uint64_t>(factor * static_cast<double>(octave));
      status.curve.push_back({Bytes(size), 100 * ratio(size / block_bytes_)});
    }
  }
}

void SizeForecast::add_tiers(ForecastStatus& status) const {
  if (host_blocks_ > 0) add_sizes(Tier::kHost, host_blocks_, status);
  if (disk_blocks_ > 0) add_sizes(Tier::kDisk, disk_blocks_, status);
}

ForecastStatus SizeForecast::status() const {
  const MutexLock lock(curve_mutex_);
  ForecastStatus status;
  status.block = Bytes(block_bytes_);
  status.block_tokens = block_tokens_;
  status.disk_has_copies = disk_has_copies_;
  status.window = Nanoseconds(std::llround(window_.seconds * 1e9));
  status.prompt_tokens = static_cast<std::uint64_t>(window_.prompt_tokens);
  status.engine_tokens = static_cast<std::uint64_t>(window_.engine_tokens);
  status.longest_usual = longest_usual();
  status.least_host = Bytes(
      block_bytes_ * static_cast<std::uint64_t>(std::ceil(
                         static_cast<double>(status.longest_usual) / std::max(pin_share_, 1e-6))));
  add_curve(status);
  if (curve_) status.blocks_asked = static_cast<std::uint64_t>(curve_->weight());
  add_tiers(status);
  return status;
}

void SizeForecast::visit_metrics(MetricVisitor& visitor) const {
  visitor.counter("terrace_forecast_dropped_requests_total", {}, dropped_.value());
  ForecastStatus of_tiers;
  {
    const MutexLock lock(curve_mutex_);
    add_tiers(of_tiers);
  }
  for (const SizeForecastStatus& size : of_tiers.sizes) {
    visitor.gauge("terrace_forecast_hit_ratio",
                  fmt::format("tier=\"{}\",factor=\"{}\"", to_string(size.tier), size.factor),
                  size.hit_percent / 100);
  }
}

}  // namespace terrace::manager
