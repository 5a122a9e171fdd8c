#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <new>

#include "terrace/manager/size_forecast_internal.h"

namespace terrace::manager {

namespace {
constexpr double kFactors[] = {0.5, 1, 2, 4};
constexpr std::size_t kUsualHashes = 4096;
constexpr std::size_t kUsualRequests = 64;

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
  return {options.host.size, options.host.blocks, has_disk ? options.disk.size : Bytes(0),
          has_disk ? options.disk.blocks : 0};
}
}  // namespace

SizeForecast::SizeForecast(const Options& options)
    : block_bytes_(block_bytes(options.layout)),
      block_tokens_(options.layout.block_tokens),
      host_blocks_(blocks_of(tiers_of(options).host_blocks, tiers_of(options).host, block_bytes_)),
      disk_blocks_(blocks_of(tiers_of(options).disk_blocks, tiers_of(options).disk, block_bytes_)) {
  // Engine calls allocate only for more than this.
  for (Asked* asked : {&asked_, &taken_}) {
    asked->hashes.reserve(kUsualHashes);
    asked->lengths.reserve(kUsualRequests);
  }
}

void SizeForecast::ask(std::span<const SequenceHash> chain) {
  if (chain.empty()) return;
  const MutexLock lock(asked_mutex_);
  if (asked_.hashes.size() + chain.size() > kMostWaiting) {
    dropped_.add();
    return;
  }
  asked_.hashes.insert(asked_.hashes.end(), chain.begin(), chain.end());
  try {
    asked_.lengths.push_back(chain.size());
  } catch (const std::bad_alloc&) {
    asked_.hashes.resize(asked_.hashes.size() - chain.size());  // All of it or nothing.
    throw;
  }
}

bool SizeForecast::work() {
  {
    const MutexLock lock(asked_mutex_);
    std::swap(asked_, taken_);
  }
  if (taken_.lengths.empty() || has_failed_) return false;
  std::span<const SequenceHash> rest = taken_.hashes;
  for (const std::size_t length : taken_.lengths) {
    const MutexLock lock(curve_mutex_);
    if (!curve_) {
      const std::uint64_t of_tiers =
          std::max<std::uint64_t>(kLargest * (host_blocks_ + disk_blocks_), 1);
      auto made = policy::MissCurve::create(
          {.most_blocks = std::max(of_tiers, kMostOfCurve.value() / block_bytes_),
           .aging_blocks = of_tiers});
      has_failed_ = !made.has_value();
      if (has_failed_) break;
      curve_.emplace(*std::move(made));
    }
    curve_->request(rest.first(length));
    rest = rest.subspan(length);
  }
  taken_.hashes.clear();
  taken_.lengths.clear();
  return true;
}

void SizeForecast::add_sizes(Tier tier, std::uint64_t below, std::uint64_t blocks,
                             ForecastStatus& status) const {
  for (const double factor : kFactors) {
    const auto asked = static_cast<std::uint64_t>(factor * static_cast<double>(blocks));
    status.sizes.push_back({.tier = tier,
                            .factor = factor,
                            .size = Bytes(asked * block_bytes_),
                            .hit_percent = curve_ ? 100 * curve_->hit_ratio(below + asked) : 0});
  }
}

void SizeForecast::add_curve(ForecastStatus& status) const {
  if (!curve_) return;
  const std::uint64_t least = std::bit_ceil(kLeastOfCurve * block_bytes_);
  for (std::uint64_t octave = least; octave <= kMostOfCurve.value(); octave *= 2) {
    for (const double factor : {1.0, 1.189207, 1.414214, 1.681793}) {
      const auto size = static_cast<std::uint64_t>(factor * static_cast<double>(octave));
      status.curve.push_back({Bytes(size), 100 * curve_->hit_ratio(size / block_bytes_)});
    }
  }
}

void SizeForecast::add_tiers(ForecastStatus& status) const {
  if (host_blocks_ > 0) add_sizes(Tier::kHost, 0, host_blocks_, status);
  if (disk_blocks_ > 0) add_sizes(Tier::kDisk, host_blocks_, disk_blocks_, status);
}

ForecastStatus SizeForecast::status() const {
  const MutexLock lock(curve_mutex_);
  ForecastStatus status;
  status.block = Bytes(block_bytes_);
  status.block_tokens = block_tokens_;
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
